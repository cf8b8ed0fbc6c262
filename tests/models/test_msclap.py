"""MS-CLAP 2023: its text encoder against transformers' GPT-2, its audio encoder against PENGI's."""

import copy
import json
import math
import pickle
import shutil
import sys
from functools import partial

import pytest
import soundfile
import tones
import torch
import torch.nn.functional as F
from model_checks import assert_near, check_trials, watch_digests
from reference import relative
from safetensors.torch import save_file

from palmkit import METHODS, embed, load_model, load_pengi
from palmkit.cli import main
from palmkit.experiments import executor
from palmkit.models import AudioTextModel, CheckpointError, Pengi, PromptableText
from palmkit.models.about import UNKNOWN, default_settings, describe, has_pengi_design
from palmkit.models.base import find_missing
from palmkit.models.check import check_model
from palmkit.models.checkpoint import check_depths
from palmkit.models.checkpoint import checkpoint_state as pengi_state
from palmkit.models.msclap import LICENCE, WEIGHTS_FILE, load_msclap
from palmkit.models.msclap_checkpoint import MSCLAP_SIZES, SCALE, text_state

pytest.importorskip("transformers", reason="transformers is not installed: palmkit[clap]")

from small_msclap import CONFIG, END, LOG_SCALE, TEXT, TOKENS, make_encoders, save_msclap  # noqa: E402
from transformers import GPT2Config, GPT2Model, GPT2TokenizerFast  # noqa: E402

pytestmark = pytest.mark.slow

RATE, CLIP = 44_100, 308_700
make_waves = partial(tones.make_waves, seconds=7, rate=RATE)
NAMES = ["low hum", "a very high whistle of a bird", "noise", "stop! dog"]
PROMPTS = [
    *(
        "this is the sound of dog",
        "noise",
        "x",
        "",
        "a high whistle, and a low hum of a dog. noise",
    ),
    *("hey! a dog", "hey!! dog!", "!", "! ! ! ! ! !", "Größe 12", " two  spaces ", "low hum " * 9),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_msclap(tmp_path_factory.mktemp("msclap"))


@pytest.fixture(scope="module")
def model(folder):
    return load_model(f"msclap:{folder}", device="cpu")


@pytest.fixture(scope="module")
def state(folder):
    return torch.load(folder / WEIGHTS_FILE, weights_only=True)["model"]


@pytest.fixture(scope="module")
def tokenizer(folder):
    """transformers' tokenizer, set up as the public package does it."""
    with_padding = GPT2TokenizerFast.from_pretrained(str(folder))
    with_padding.add_special_tokens({"pad_token": "!"})
    return with_padding


class Reference:
    """MS-CLAP's text encoder from the same tensors: transformers' GPT-2 on padded sentences, the
    hidden state at the last id that is not 0, and the projection."""

    def __init__(self, state, tokenizer):
        config = GPT2Config(
            vocab_size=TOKENS, n_positions=100, n_embd=32, n_layer=2, n_head=4, n_inner=64
        )
        self.gpt2, self.tokenizer, self.state = GPT2Model(config).eval(), tokenizer, state
        prefix = "caption_encoder.base."
        own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        self.gpt2.load_state_dict(own, strict=True)

    def tokenize(self, texts):
        texts = [f"{text} {END}" for text in texts]
        return self.tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")

    def encode(self, ids, mask, embeddings):
        hidden = self.gpt2(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        places = (ids != 0).sum(1) - 1
        return F.normalize(self.project(hidden[torch.arange(len(ids)), places]), dim=-1)

    def project(self, x):
        W1, W2, scale, shift = (
            self.state[f"caption_encoder.projection.{name}"]
            for name in ("linear1.weight", "linear2.weight", "layer_norm.weight", "layer_norm.bias")
        )
        e1 = x @ W1.T
        return F.layer_norm(e1 + F.gelu(e1) @ W2.T, scale.shape, scale, shift)

    @torch.no_grad()
    def texts(self, texts):
        made = self.tokenize(texts)
        ids, mask = made["input_ids"], made["attention_mask"]
        return self.encode(ids, mask, self.gpt2.wte(ids))

    def coop(self, names, context):
        """COOP's text embeddings [c, dim]: the words' embeddings are put together by hand."""
        made = self.tokenize([f"{'X ' * len(context)}{name}." for name in names])
        ids, mask = made["input_ids"], made["attention_mask"]
        words = self.gpt2.wte(ids)[:, len(context) :]
        tokens = torch.cat([context.expand(len(ids), -1, -1), words], 1)
        return self.encode(ids, mask, tokens)


@pytest.fixture(scope="module")
def reference(state, tokenizer):
    return Reference(state, tokenizer)


def random_features(n):
    return F.normalize(torch.randn(n, 48, generator=torch.Generator().manual_seed(0)), dim=-1)


# What it is


def test_it_follows_the_protocols(model):
    assert not find_missing(model, AudioTextModel) and not find_missing(model, PromptableText)
    check_model(model)
    assert (model.sample_rate, model.clip_seconds, model.dim) == (RATE, 7, 48)
    assert model.logit_scale == pytest.approx(math.exp(LOG_SCALE))
    assert model.prompt == "this is the sound of {}" and model.name == WEIGHTS_FILE
    assert "MS-CLAP" in model.note and "not PENGI" in model.note and "random weights" in model.note
    assert not isinstance(model, Pengi)  # else it would get the published code's train mode
    assert not has_pengi_design(model) and default_settings(model) == {}  # PENGI's are of PENGI
    assert (model.padding, model.channels) == ("repeat", "join")
    assert describe(model) == model.about and UNKNOWN not in model.about.values()
    assert model.about["licence"] == LICENCE and model.checkpoint_sha256 in model.about["revision"]
    for encoder in (model.audio, model.text):
        assert not any(p.requires_grad for p in encoder.parameters()) and not encoder.training


# Text


def test_tokens_equal_the_library_s(model, reference):
    ids, mask = model.tokenize(PROMPTS)
    theirs = reference.tokenize(PROMPTS)
    assert torch.equal(ids, theirs["input_ids"]) and ids.shape == (len(PROMPTS), 77)
    no_marks = [n for n, prompt in enumerate(PROMPTS) if "!" not in prompt]
    assert torch.equal(mask[no_marks], theirs["attention_mask"][no_marks])
    assert (ids[no_marks, mask[no_marks].sum(1) - 1] == TOKENS - 1).all()  # <|endoftext|>


def test_text_equals_gpt2_and_the_projection(model, reference):
    theirs = reference.texts(PROMPTS)
    assert theirs.std(0).mean() > 0.05, "the texts must not have one and the same embedding"
    assert_near(model.encode_text(PROMPTS), theirs)
    assert len({int(n) for n in model.tokenize(PROMPTS)[1].sum(1)}) > 6


def test_an_exclamation_mark_moves_the_place_that_is_read(model):
    """One token to the front for each. So behind three of them, neither <|endoftext|> nor the space
    before it nor the token before that has any effect."""
    ids, mask = model.tokenize(["dog!!! noise."])
    last = int((ids != 0).nonzero()[-1, 1])
    assert ids[0, last] == TOKENS - 1 and mask.sum() == last - 2
    with_stop, with_comma, other = (
        model.encode_text([f"dog!!! {end}"]) for end in ("noise.", "noise,", "sound.")
    )
    assert torch.equal(with_stop, with_comma) and not torch.equal(with_stop, other)
    assert not torch.equal(model.encode_text(["dog noise."]), model.encode_text(["dog noise,"]))


def test_a_text_s_embedding_does_not_depend_on_its_neighbours(model):
    together = model.encode_text(PROMPTS)
    assert_near(together, torch.cat([model.encode_text([one]) for one in PROMPTS]), 1e-6)


def test_the_longest_text(model):
    """77 tokens with <|endoftext|>, as many as the public package pads to."""
    longest = " ".join(["X"] * 75)
    assert model.tokenize([longest])[1].sum() == 77
    model.encode_text([longest])
    with pytest.raises(ValueError, match="^'X X .* has 78 tokens; the text encoder takes 77: sho"):
        model.encode_text(["dog", f"{longest} X"])
    with pytest.raises(ValueError, match="has 78 tokens"):
        METHODS["coop"](model, ["dog", "x"], context_length=74)
    with pytest.raises(TypeError, match="list of strings"):
        model.encode_text("dog")
    with pytest.raises(ValueError, match="no prompts"):
        model.encode_text([])


def test_zero_shot_has_the_model_s_prompt_and_scale(model, reference):
    text = reference.texts([f"this is the sound of {name}" for name in NAMES])
    features = random_features(3)
    logits = METHODS["zeroshot"](model, NAMES)(features)
    torch.testing.assert_close(logits, math.exp(3) * features @ text.T, rtol=0, atol=2e-4)


# COOP and COCOOP without a start token


@pytest.mark.parametrize("length", [16, 5, 1, 0])
def test_coop_equals_a_padded_reference(model, reference, length):
    """Text embeddings, and their gradient in the context."""
    method = METHODS["coop"](model, NAMES, context_length=length, seed=1)
    method.context.data.mul_(5)
    weights = torch.randn(len(NAMES), 48, generator=torch.Generator().manual_seed(2))
    text = method.text_features(method.context[None])[0]
    context = method.context.detach().clone().requires_grad_()
    theirs = reference.coop(NAMES, context)
    assert len({int(n) for n in method.lengths}) > 2, "names of like lengths prove less"
    assert_near(text, theirs)
    if length:
        (text * weights).sum().backward()
        (theirs * weights).sum().backward()
        assert context.grad.abs().max() > 0.01
        assert_near(method.context.grad, context.grad)


@pytest.mark.parametrize("tokens", [100_000, 60], ids=["at once", "in chunks"])
def test_cocoop_equals_a_padded_reference(model, reference, tokens):
    """Logits and all gradients; the reference runs one sentence for each clip and class."""
    method = METHODS["cocoop"](model, NAMES, context_length=4)
    method.max_tokens = tokens
    other, labels, features = copy.deepcopy(method), torch.tensor([0, 3, 2]), random_features(3)
    logits = method(features)
    rows = []
    for clip in features:
        text = reference.coop(NAMES, other.context + other.meta_net(clip))
        rows.append(model.logit_scale * clip @ text.T)
    theirs = torch.stack(rows)
    assert_near(logits, theirs, 2e-4)  # the scale is 20
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(theirs, labels).backward()
    for (name, ours), expected in zip(method.named_parameters(), other.parameters(), strict=True):
        scale = expected.grad.abs().max()
        assert scale > 0, name
        assert_near(ours.grad / scale, expected.grad / scale)


def test_coop_starts_as_the_prompt(model):
    """init="text": all tokens of the prompt in front of the class, and COOP's full stop."""
    coop = METHODS["coop"](model, NAMES, init="text")
    tokens = model.tokenizer.encode("this is the sound of")
    assert torch.equal(coop.context.data, model.embed_tokens(torch.tensor(tokens)))
    text = coop.text_features(coop.context[None])[0]
    assert_near(text, model.encode_text([f"{model.prompt.format(name)}." for name in NAMES]))


def test_nothing_stands_in_front_of_the_context(model):
    method = METHODS["coop"](model, NAMES, context_length=3)
    assert method.start.shape == (1, 0, 32)
    ids, mask = model.tokenize(["X X X low hum."])
    assert torch.equal(
        method.names[0, : method.lengths[0]], model.embed_tokens(ids[0, 3 : mask.sum()])
    )
    assert method.lengths[0] == mask.sum() - 3


# Audio


def make_pengi(model, state, folder):
    """PENGI from a file with the same audio tensors."""
    from small_pengi import SIZES

    from palmkit.models import random

    _, text = random.random_encoders(SIZES, heads=4)
    audio = {k: v for k, v in state.items() if k.startswith("audio_encoder")}
    rest = {k: v for k, v in pengi_state(model.audio, text).items() if k.startswith("caption")}
    torch.save({"model": audio | rest}, folder / "base.pth")
    return load_pengi(folder / "base.pth", device="cpu", config=CONFIG)


def test_audio_is_pengi_s_to_the_last_bit(model, state, tmp_path):
    """So both share cached embeddings of the same audio weights."""
    pengi, waves = make_pengi(model, state, tmp_path), make_waves(5)
    ours = model.encode_audio(waves)
    assert torch.equal(ours, pengi.encode_audio(waves)) and ours.std(0).mean() > 0.01
    assert model.audio_digest() == pengi.audio_digest() and model.digest() != pengi.digest()


def test_the_published_code_s_tensors(source, pengi, folder, tmp_path):
    """The reference's HTS-AT and projection, under MS-CLAP's names, and its embeddings."""
    audio = {k: v for k, v in source.state().items() if "audio_encoder" in k}
    d_proj = audio["module.audio_encoder.projection.layer_norm.weight"].numel()
    _, text = make_encoders(sizes={"d_proj": d_proj, "audio": MSCLAP_SIZES["audio"], "text": TEXT})
    state = audio | text_state(text) | {f"module.{SCALE}": torch.tensor(LOG_SCALE)}
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(folder / name, tmp_path)
    torch.save({"model": state}, tmp_path / "tiny.pth")
    config = {"audio": source.facts["config"]["audio"], "text": CONFIG["text"]}
    model = load_msclap(tmp_path, "cpu", config)
    ours = model.encode_audio(source.waves())
    assert torch.equal(ours, pengi.encode_audio(source.waves()))
    assert relative(ours, source.tables["audio_eval"]["embedding_norm"]).max() < 1e-4


def test_a_clip_s_embedding_does_not_depend_on_its_neighbours(model):
    waves = make_waves(6)
    together = model.encode_audio(waves)
    assert torch.equal(together, torch.cat([model.encode_audio(one[None]) for one in waves]))
    assert torch.equal(together.flip(0), model.encode_audio(waves.flip(0)))


def test_files_are_read_as_the_public_package_reads_them(model, tmp_path):
    """Channels one after the other, repeated and cut to 7 s; of a longer file, a seeded crop."""
    short, long = make_waves(2)[:, :100_000], make_waves(1).repeat(1, 2)[:, :400_000]
    soundfile.write(tmp_path / "short.wav", short.T.numpy(), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "long.wav", long.T.numpy(), RATE, subtype="FLOAT")
    got = embed(model, [tmp_path / "short.wav", tmp_path / "long.wav"], cache=None)
    filled = short.reshape(-1).repeat(2)[:CLIP]
    crop = long[0, got.offsets[1] :][:CLIP]
    assert 0 < got.offsets[1] <= 400_000 - CLIP
    assert torch.equal(got.features, model.encode_audio(torch.stack([filled, crop])))
    again = embed(model, [tmp_path / "long.wav"], cache=None)
    assert torch.equal(again.features[0], got.features[1])


# Identity


def test_the_digest_covers_what_changes_an_embedding(folder):
    model = load_model(f"msclap:{folder}", "cpu")
    first = model.digest(), model.audio_digest()
    model.encode_text(["a", "a longer one"])
    model.note = "another note"
    assert (model.digest(), model.audio_digest()) == first
    changed, text, audio = watch_digests(model), model.text, model.audio
    assert changed(model, "logit_scale", 21.0) == (True, False)
    for tensor in text.state_dict(keep_vars=True).values():
        assert changed(tensor, "data", tensor.data + 1) == (True, False)
    for tensor in (
        audio.mel,
        audio.window,
        audio.bn0.running_mean,
        audio.projection.linear2.weight,
    ):
        assert changed(tensor, "data", tensor.data + 1) == (True, True)
    assert changed(model.config["text"], "layer_norm_eps", 1e-3) == (True, False)
    assert changed(model.config["audio"], "hop_size", 320) == (True, True)
    assert changed(model.config, "precision", "float64") == (True, False)
    vocabulary = model.tokenizer.vocabulary
    assert changed(vocabulary, "a", vocabulary["b"]) == (True, False)
    assert changed(model.tokenizer.merges, 0, ("a", "b")) == (True, False)


def test_other_weights_are_another_model(model, tmp_path):
    other = load_model(f"msclap:{save_msclap(tmp_path, seed=1)}", "cpu")
    assert other.digest() != model.digest() and other.audio_digest() != model.audio_digest()


def test_it_pickles(model):
    again = pickle.loads(pickle.dumps(model))
    assert again.digest() == model.digest() and again.about == model.about
    assert torch.equal(again.encode_text(PROMPTS), model.encode_text(PROMPTS))


# Loading


def test_file_and_folder_and_safetensors(model, folder, state, tmp_path):
    by_file = load_model(f"msclap:{folder / WEIGHTS_FILE}", "cpu")
    assert by_file.digest() == model.digest()
    for name in ("vocab.json", "merges.txt", "config.json"):
        shutil.copy(folder / name, tmp_path)
    save_file(state, tmp_path / "weights.safetensors")
    assert load_model(f"msclap:{tmp_path}", "cpu").digest() == model.digest()
    (tmp_path / "other.pth").touch()
    message = "or one other checkpoint .*found: other.pth, weights.safetensors"
    with pytest.raises(CheckpointError, match=message):
        load_model(f"msclap:{tmp_path}", "cpu")
    with pytest.raises(FileNotFoundError, match="no file or folder .*absent.*microsoft/msclap"):
        load_model(f"msclap:{tmp_path / 'absent'}", "cpu")


def test_the_library_s_tokenizer_file(model, folder, tokenizer, tmp_path):
    """tokenizer.json, as GPT-2's repository has it, in place of the two files."""
    copied = shutil.copytree(folder, tmp_path / "whole")
    (copied / "vocab.json").unlink()
    (copied / "merges.txt").unlink()
    tokenizer.backend_tokenizer.save(str(copied / "tokenizer.json"))
    whole = load_model(f"msclap:{copied}", "cpu")
    assert whole.digest() == model.digest()
    assert torch.equal(whole.tokenize(PROMPTS)[0], model.tokenize(PROMPTS)[0])


def test_what_older_libraries_store_is_left_out(model, folder, state, tmp_path):
    """Causal masks and HTS-AT's unused classifier; names with the prefix of DDP; float64."""
    copied = shutil.copytree(folder, tmp_path / "older")
    more = {f"caption_encoder.base.h.{n}.attn.bias": torch.ones(1, 1, 100, 100) for n in (0, 1)}
    more |= {"caption_encoder.base.h.0.attn.masked_bias": torch.tensor(-1e4)}
    more |= {"audio_encoder.base.htsat.head.weight": torch.ones(3, 3)}
    older = {f"module.{key}": tensor for key, tensor in (state | more).items()}
    torch.save({"model": older, "epoch": 3}, copied / WEIGHTS_FILE)
    assert load_model(f"msclap:{copied}", "cpu").digest() == model.digest()
    config = CONFIG | {"precision": "float64"}
    double = load_msclap(copied, "cpu", config)
    assert double.dtype == torch.float64 and double.digest() != model.digest()
    assert_near(double.encode_text(PROMPTS).float(), model.encode_text(PROMPTS))


def test_a_file_in_half_precision(model, folder, state, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "half")
    torch.save({k: v.half() for k, v in state.items()}, copied / WEIGHTS_FILE)
    half = load_model(f"msclap:{copied}", "cpu")
    assert half.dtype == torch.float32
    assert_near(half.encode_text(PROMPTS), model.encode_text(PROMPTS), 0.02)


def edit_state(change):
    def edit(folder):
        state = torch.load(folder / WEIGHTS_FILE, weights_only=True)["model"]
        change(state)
        torch.save({"model": state}, folder / WEIGHTS_FILE)

    return edit


def edit_json(name, change):
    def edit(folder):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return edit


def rename(state, old, new):
    for key in [key for key in state if old in key]:
        state[key.replace(old, new)] = state.pop(key)


def swap_first(vocabulary):
    vocabulary["!"], vocabulary["a"] = vocabulary["a"], vocabulary["!"]


def cut_file(folder):
    data = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(data[: len(data) // 2])


GPT2 = "caption_encoder.base."
C_FC, C_ATTN = f"{GPT2}h.1.mlp.c_fc", f"{GPT2}h.1.attn.c_attn"
BROKEN = {
    rf"missing: {C_ATTN}.bias \[96\]": edit_state(lambda s: s.pop(f"{C_ATTN}.bias")),
    rf"missing: {GPT2}ln_f.weight \[32\]": edit_state(lambda s: s.pop(f"{GPT2}ln_f.weight")),
    r"missing: logit_scale \[\]": edit_state(lambda s: s.pop(SCALE)),
    rf"unexpected: {GPT2}h.0.extra \[2\]": edit_state(
        lambda s: s.update({f"{GPT2}h.0.extra": torch.ones(2)})
    ),
    rf"unexpected: {GPT2}h.x.extra \[2\]": edit_state(
        lambda s: s.update({f"{GPT2}h.x.extra": torch.ones(2)})
    ),
    rf"misshapen: {C_ATTN}.weight \[96, 32\], expected \[32, 96\]": edit_state(
        lambda s: s.update({f"{C_ATTN}.weight": s[f"{C_ATTN}.weight"].T.contiguous()})
    ),
    rf"not finite: {C_FC}.weight": edit_state(lambda s: s[f"{C_FC}.weight"].fill_(math.nan)),
    "no plain floating-point numbers: logit_scale": edit_state(
        lambda s: s.update({SCALE: torch.tensor(3)})
    ),
    "logit_scale is 200.0, which gives a scale of inf": edit_state(
        lambda s: s.update({SCALE: torch.tensor(200.0)})
    ),
    "the tensor .*wpe.weight, which shows text positions, is missing": edit_state(
        lambda s: s.pop(f"{GPT2}wpe.weight")
    ),
    "wpe.weight has 60 rows, too few for 77 tokens": edit_state(
        lambda s: s.update({f"{GPT2}wpe.weight": s[f"{GPT2}wpe.weight"][:60].clone()})
    ),
    r"missing: audio_encoder.projection.linear2.weight": edit_state(
        lambda s: s.pop("audio_encoder.projection.linear2.weight")
    ),
    "its text encoder is BERT, so it is MS-CLAP 2022": edit_state(
        lambda s: rename(s, "base.wte", "base.embeddings.word_embeddings")
    ),
    "its text encoder is CLIP's, so it is PENGI's checkpoint": edit_state(
        lambda s: rename(s, "base.wte", "base.embeddings.token_embedding")
    ),
    "holds no MS-CLAP encoder": edit_state(lambda s: rename(s, "_encoder", "")),
    "is no whole PyTorch or safetensors checkpoint": cut_file,
    "merges.txt of the tokenizer is missing: put .*gpt2": lambda f: (f / "merges.txt").unlink(),
    "the tokenizer has 301 tokens, and the text encoder 300": edit_json(
        "vocab.json", lambda v: v.update({"more": 300})
    ),
    "the tokenizer has '!' as token ": edit_json("vocab.json", swap_first),
    r"the tokenizer lacks <\|endoftext\|>": edit_json(
        "vocab.json", lambda v: rename(v, END, "end")
    ),
    "does not number its 300 tokens from 0 on": edit_json("vocab.json", lambda v: v.update(a=7)),
    "the vocabulary is no dict": edit_json("vocab.json", lambda v: v.update(a="7")),
    "the files of the tokenizer cannot be read": lambda f: (f / "vocab.json").write_text("{"),
    "is no merge of two tokens": lambda f: (f / "merges.txt").write_text("a b c\n"),
    "merges are not of it": lambda f: (f / "merges.txt").write_text("qq zz\n"),
    "the config .*hidden_act='gelu', but this code does 'gelu_new'": edit_json(
        "config.json", lambda c: c["text"].update(hidden_act="gelu")
    ),
    "text width 32 is no multiple of 5 heads": edit_json(
        "config.json", lambda c: c["text"].update(num_attention_heads=5)
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_what_is_wrong_is_named(folder, tmp_path, message):
    copied = shutil.copytree(folder, tmp_path / "broken")
    BROKEN[message](copied)
    with pytest.raises(CheckpointError, match=message) as raised:
        load_model(f"msclap:{copied}", "cpu")
    assert WEIGHTS_FILE in str(raised.value)


def test_without_the_prefix_it_says_how_to_load_it(folder):
    with pytest.raises(CheckpointError, match="is GPT-2, so .* load it as msclap:FILE"):
        load_model(folder / WEIGHTS_FILE, "cpu")


def test_a_missing_package_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ModuleNotFoundError, match=r'install "palmkit\[clap\]"'):
        load_model(f"msclap:{folder}", "cpu")


def test_code_in_a_file_is_not_run(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "code")
    torch.save({"model": CheckpointError}, copied / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match="Objects could run code and are not loaded"):
        load_model(f"msclap:{copied}", "cpu")


def test_a_missing_last_layer():
    """No tensor shows how many there should be, but MS-CLAP's widths do."""
    check_depths(MSCLAP_SIZES, MSCLAP_SIZES, "MS-CLAP 2023")
    sizes = MSCLAP_SIZES | {"text": MSCLAP_SIZES["text"] | {"num_hidden_layers": 11}}
    message = "layers of the text encoder are missing: .* is 11, MS-CLAP 2023 has 12"
    with pytest.raises(CheckpointError, match=message):
        check_depths(sizes, MSCLAP_SIZES, "MS-CLAP 2023")


def test_a_model_that_does_not_say_its_special_tokens(model, monkeypatch):
    monkeypatch.delattr(type(model), "special_tokens")
    message = "one token for the word X, and 1 in front of a text and 1 behind it .`special_tokens`"
    with pytest.raises(ValueError, match=message):
        METHODS["coop"](model, NAMES)


def test_other_sizes_without_a_config_give_a_warning(folder, tmp_path):
    """The heads are not in the tensors: twelve, as GPT-2 has them, do not divide a width of 32."""
    copied = shutil.copytree(folder, tmp_path / "no config")
    (copied / "config.json").unlink()
    with (
        pytest.warns(UserWarning, match="12 text heads are assumed"),
        pytest.raises(CheckpointError, match="32 is no multiple of 12 heads"),
    ):
        load_model(f"msclap:{copied}", "cpu")


# All the way


@pytest.fixture
def dataset(tmp_path):
    """Three classes of tones in noise, of 7 s or less, so that no clip is cropped."""
    return tones.write_tone_dataset(tmp_path / "tones", NAMES[:3], RATE, (7, 6, 5, 3))


def test_trials(model, dataset, tmp_path):
    """Rows are as from files that are read, repeated up to 7 s and learned from by hand."""

    def encode(waves):
        return model.encode_audio(torch.stack([wave.repeat(3)[:CLIP] for wave in waves]))

    check_trials(model, dataset, tmp_path, encode)


@pytest.mark.slow
def test_the_command_line_with_two_processes(folder, dataset, tmp_path, monkeypatch):
    """The model is sent to the workers; the rows are those of one process."""
    monkeypatch.setenv("PALMKIT_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(executor, "START", 0)  # seconds of work that processes are started for
    flags = ["--dataset", str(dataset), "--shots", "2", "--seed", "0", "--epochs", "2"]
    flags += ["--checkpoint", f"msclap:{folder}", "--device", "cpu"]
    losses = []
    for jobs in ("1", "2"):
        monkeypatch.setenv("PALMKIT_JOBS", jobs)
        methods = ["zeroshot", "coop", "cocoop"]
        assert main(["run", *flags, "--method", *methods, "--name", jobs]) == 0
        files = (tmp_path / "runs" / jobs / "rows").rglob("*.json")
        rows = {row["method"]: row for row in (json.loads(file.read_text()) for file in files)}
        assert sorted(rows) == sorted(methods)
        assert all("MS-CLAP" in row["note"] for row in rows.values())
        losses.append([rows[method]["loss"] for method in methods])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
