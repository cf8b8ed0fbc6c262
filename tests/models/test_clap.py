"""LAION-CLAP: what a folder's ClapModel gives here and in the library's own pipeline."""

import json
import math
import os
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import soundfile
import tones
import torch
import torch.nn.functional as F
from model_checks import assert_near, check_trials, watch_digests
from safetensors.torch import load_file, save_file

from palmkit import METHODS, embed, load_model, read_clip
from palmkit.audio import crop_clip
from palmkit.checksums import sha256_of
from palmkit.models import AudioTextModel, CheckpointError, PromptableText, clap
from palmkit.models.about import UNKNOWN, describe
from palmkit.models.base import find_missing
from palmkit.models.check import check_model

pytest.importorskip("transformers", reason="transformers is not installed: palmkit[clap]")

import transformers  # noqa: E402
from small_clap import make_clap, save_clap  # noqa: E402

RATE, SECONDS = 48_000, 10
NAMES = ["low hum", "a very high whistle of a bird", "noise", "dog"]
MAJOR = int(transformers.__version__.split(".")[0])
make_waves = partial(tones.make_waves, rate=RATE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_clap(tmp_path_factory.mktemp("clap"))


@pytest.fixture(scope="module")
def model(folder):
    return load_model(f"clap:{folder}", device="cpu")


@pytest.fixture(scope="module")
def library(folder):
    """The library's own model and processor of the same folder."""
    return (
        transformers.ClapModel.from_pretrained(folder).eval(),
        transformers.ClapProcessor.from_pretrained(folder),
    )


def pooled(answer):
    """The library's answer as a tensor; which kind it is follows from its version."""
    assert isinstance(answer, torch.Tensor) == (MAJOR < 5)
    return answer if MAJOR < 5 else answer.pooler_output


def library_text(library, prompts):
    network, processor = library
    inputs = processor(text=prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return pooled(network.get_text_features(**inputs))


def library_audio(library, waves):
    network, processor = library
    inputs = processor.feature_extractor(
        [wave.numpy() for wave in waves], sampling_rate=RATE, return_tensors="pt"
    )
    with torch.no_grad():
        return pooled(network.get_audio_features(**inputs))


# What it is


def test_it_follows_the_protocols(model, folder):
    assert not find_missing(model, AudioTextModel) and not find_missing(model, PromptableText)
    check_model(model)
    assert (model.sample_rate, model.clip_seconds, model.dim) == (RATE, SECONDS, 32)
    assert model.logit_scale == pytest.approx(math.exp(3))
    assert model.prompt == "This is a sound of {}." and "not PENGI" in model.note
    assert model.name == folder.name and model.padding == "repeatpad"
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


# Parity with the library


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [10, 7.5, 4, 0.7])
def test_audio_equals_the_library_s(model, library, seconds):
    """A whole clip, and shorter ones that the processor repeats and pads."""
    waves = make_waves(5, seconds)
    theirs = library_audio(library, waves)
    assert theirs.std(0).mean() > 0.01, "the clips must not have one and the same embedding"
    assert_near(model.encode_audio(waves), theirs)


@pytest.mark.slow
def test_files_equal_the_library_s(model, library, tmp_path):
    """`embed` brings a file to 10 s as the processor would, and another rate to 48 kHz."""
    short, long = make_waves(2, 3.3), make_waves(1, 12)[0]
    paths = []
    for n, wave in enumerate([*short, long]):
        paths.append(str(tmp_path / f"{n}.wav"))
        soundfile.write(paths[-1], wave.numpy(), RATE, subtype="FLOAT")
    got = embed(model, paths, cache=None, crop="start")
    assert_near(got.features[:2], library_audio(library, short))
    assert_near(got.features[2:], library_audio(library, long[None, : SECONDS * RATE]))
    soundfile.write(paths[0], short[0, ::2].numpy(), RATE // 2, subtype="FLOAT")
    resampled = read_clip(paths[0], "start", None, RATE, 3.3)
    assert_near(embed(model, paths[:1], cache=None).features, library_audio(library, [resampled]))


@pytest.mark.parametrize("n", [1, 7, 100, 479])
@pytest.mark.parametrize("padding", ["repeat", "repeatpad", "pad"])
def test_short_clips_are_filled_as_the_processor_does(library, n, padding):
    """Seen in the log-mel, which the extractor makes of both."""
    _, processor = library
    extractor = type(processor.feature_extractor)(
        truncation="rand_trunc", padding=padding, sampling_rate=480, frequency_max=200
    )
    wave = torch.randn(n * 10, generator=torch.Generator().manual_seed(n))
    filled, start = crop_clip(wave, 4800, padding=padding)
    a, b = (
        extractor(x.numpy(), sampling_rate=480, return_tensors="pt")["input_features"]
        for x in (wave, filled)
    )
    assert filled.shape == (4800,) and start == 0 and torch.equal(a, b)


PROMPTS = ["This is a sound of a dog.", "noise", "a high whistle, and a low hum of a dog", "x"]


def test_text_equals_the_library_s(model, library):
    theirs = library_text(library, PROMPTS)
    assert theirs.std(0).mean() > 0.01
    assert_near(model.encode_text(PROMPTS), theirs)


def test_logits_equal_the_library_s(model, library):
    network, processor = library
    waves = make_waves(3, 10)
    text = processor(text=PROMPTS, padding=True, return_tensors="pt")
    audio = processor.feature_extractor(
        [wave.numpy() for wave in waves], sampling_rate=RATE, return_tensors="pt"
    )
    with torch.no_grad():
        theirs = network(**text, **audio).logits_per_audio
    ours = model.logit_scale * model.encode_audio(waves) @ model.encode_text(PROMPTS).T
    assert_near(ours, theirs, 2e-4)  # the scale is 20


def test_zero_shot_has_the_model_s_prompt_and_scale(model, library):
    text = library_text(library, [f"This is a sound of {name}." for name in NAMES])
    features = F.normalize(torch.randn(3, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    logits = METHODS["zeroshot"](model, NAMES)(features)
    torch.testing.assert_close(logits, math.exp(3) * features @ text.T, rtol=0, atol=2e-4)


# COOP through a text tower that is not causal


def padded_reference(library, method, context):
    """COOP's text embeddings by one padded call, the words' embeddings put together by hand."""
    network, processor = library
    words = [f"{'X ' * len(context)}{name}." for name in method.class_names]
    inputs = processor(text=words, padding=True, return_tensors="pt")
    tokens = network.text_model.get_input_embeddings()(inputs["input_ids"])
    n, place = len(words), slice(1, 1 + len(context))
    tokens = torch.cat([tokens[:, :1], context.expand(n, -1, -1), tokens[:, place.stop :]], 1)
    # RoBERTa's position of the first token is 2, behind that of padding; padding keeps 1.
    mask = inputs["attention_mask"]
    positions = mask.cumsum(1) * mask + 1
    hidden = network.text_model(
        inputs_embeds=tokens, attention_mask=mask, position_ids=positions
    ).pooler_output
    return F.normalize(network.text_projection(hidden), dim=-1)


@pytest.mark.parametrize("most", [10_000, 60, 1], ids=["one chunk", "few chunks", "one each"])
def test_gradients_of_coop_equal_a_padded_reference(model, library, monkeypatch, most):
    monkeypatch.setattr(clap, "MAX_TOKENS", most)
    method = METHODS["coop"](model, NAMES, context_length=5, seed=1)
    method.context.data.mul_(20)
    weights = torch.randn(len(NAMES), 32, generator=torch.Generator().manual_seed(2))
    text = method.text_features(method.context[None])[0]
    (text * weights).sum().backward()
    context = method.context.detach().clone().requires_grad_()
    theirs = padded_reference(library, method, context)
    (theirs * weights).sum().backward()
    assert len({int(length) for length in method.lengths}) > 2, "names of like lengths prove less"
    assert_near(text, theirs)
    assert context.grad.abs().max() > 0.01
    assert_near(method.context.grad, context.grad)


def test_gradients_of_cocoop_do_not_depend_on_chunks(model, monkeypatch):
    features = F.normalize(torch.randn(3, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    found = []
    for most, clips in ((100_000, 100_000), (100, 100_000), (30, 60)):
        monkeypatch.setattr(clap, "MAX_TOKENS", most)
        method = METHODS["cocoop"](model, NAMES, context_length=4)
        method.max_tokens = clips
        logits = method(features)
        F.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
        found.append([logits.detach(), *(one.grad for one in method.parameters())])
    assert all(tensor.abs().max() > 0 for tensor in found[0])
    for other in found[1:]:
        for ours, theirs in zip(other, found[0], strict=True):
            assert_near(ours, theirs)


def test_every_clip_has_its_own_prefix(model):
    """encode_embeddings [b, c, dim] equals b calls with one prefix each."""
    generator = torch.Generator().manual_seed(0)
    prefix, suffix = (torch.randn(n, 3, 24, generator=generator) for n in (2, 4))
    lengths = torch.tensor([1, 3, 2, 3])
    both = model.encode_embeddings(prefix, suffix, lengths)
    apart = [model.encode_embeddings(one[None], suffix, lengths)[0] for one in prefix]
    assert both.shape == (2, 4, 32) and (both[0] - both[1]).abs().max() > 0.01
    assert_near(both, torch.stack(apart))
    suffix[0, 1:] = 1e3  # what stands in padding
    assert_near(model.encode_embeddings(prefix, suffix, lengths), both)


def test_a_token_sees_what_stands_behind_it(model):
    """So a prefix cannot run once for all classes: the network is what the code takes it for."""
    ids = torch.arange(5, 12)[None]
    seen = [
        model.network.text_model(input_ids=one).last_hidden_state[0, 1]
        for one in (ids, torch.cat([ids[:, :-1], ids[:, :1]], 1))
    ]
    assert (seen[0] - seen[1]).abs().max() > 1e-3


def test_coop_starts_as_zero_shot(model):
    """init="text": the prompt's words without the class are the context, token by token."""
    coop = METHODS["coop"](model, NAMES, init="text")
    text = coop.text_features(coop.context[None])[0]
    assert_near(text, model.encode_text([model.prompt.format(name) for name in NAMES]))


def test_the_first_placeholder_is_another_token(model):
    """The tokenizer tells the start of a text from a space, and COOP takes that."""
    ids, _ = model.tokenize(["X X X"])
    assert ids[0, 1] != ids[0, 2] == ids[0, 3]


# Invariance and identity


@pytest.mark.slow
def test_a_clip_s_embedding_does_not_depend_on_its_neighbours(model):
    waves = make_waves(7, 10)
    together = model.encode_audio(waves)
    assert torch.equal(together, torch.cat([model.encode_audio(one[None]) for one in waves]))
    assert torch.equal(together.flip(0), model.encode_audio(waves.flip(0)))


def test_a_text_s_embedding_does_not_depend_on_its_neighbours(model):
    together = model.encode_text(PROMPTS)
    assert_near(together, torch.cat([model.encode_text([one]) for one in PROMPTS]), 1e-6)


def test_nothing_is_random(model):
    """Two calls, and NumPy's global generator is left as it was."""
    waves, before = make_waves(2, 6), np.random.get_state()[1].copy()
    assert torch.equal(model.encode_audio(waves), model.encode_audio(waves))
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.slow
def test_a_fused_model(tmp_path):
    """Its log-mel has four channels and other bands. No clip counts as longer, so none is fused."""
    folder = save_clap(tmp_path, fusion=True)
    model = load_model(f"clap:{folder}", "cpu")
    network = transformers.ClapModel.from_pretrained(folder).eval()
    processor = transformers.ClapProcessor.from_pretrained(folder)
    waves, before = make_waves(3, 4), np.random.get_state()[1].copy()
    ours = model.encode_audio(waves)
    assert (np.random.get_state()[1] == before).all()
    inputs = processor.feature_extractor(
        [wave.numpy() for wave in waves], sampling_rate=RATE, return_tensors="pt"
    )
    assert inputs["input_features"].shape[1] == 4 and inputs["is_longer"].sum() == 1
    inputs["is_longer"][:] = False  # the library marked a random one
    with torch.no_grad():
        assert_near(ours, pooled(network.get_audio_features(**inputs)))


def test_the_digest_covers_what_changes_an_embedding(folder):
    model = load_model(f"clap:{folder}", "cpu")
    first = model.digest(), model.audio_digest()
    model.encode_text(["a", "a longer one"])  # a call sets the tokenizer's padding
    assert (model.digest(), model.audio_digest()) == first
    changed, network = watch_digests(model), model.network
    assert changed(network.logit_scale_a, "data", torch.tensor(2.0)) == (True, False)
    bias = network.text_projection.linear1.bias
    assert changed(bias, "data", bias.data + 1) == (True, False)
    mean = network.audio_model.audio_encoder.batch_norm.running_mean
    assert changed(mean, "data", mean.data + 1) == (True, True)
    assert changed(network.config.text_config, "layer_norm_eps", 1e-3) == (True, False)
    assert changed(network.config.audio_config, "window_size", 4) == (True, True)
    assert changed(model.extractor, "frequency_max", 8000) == (True, True)
    assert changed(model.extractor, "padding", "pad") == (True, True)
    model.tokenizer.add_tokens(["whistle"])
    assert model.digest() != first[0] and model.audio_digest() == first[1]


def test_the_cache_knows_the_padding(model, folder, tmp_path):
    soundfile.write(tmp_path / "a.wav", make_waves(1, 4)[0].numpy(), RATE)
    other = load_model(f"clap:{folder}", "cpu")
    other.padding = "repeat"
    first, second = (
        embed(one, [tmp_path / "a.wav"], cache=tmp_path / "cache").features
        for one in (model, other)
    )
    assert not torch.equal(first, second)


# Loading


def test_a_small_file_in_half_precision(folder, tmp_path):
    """It is computed in float32, whatever the library's version takes by default."""
    half = shutil.copytree(folder, tmp_path / "half")
    state = load_file(half / "model.safetensors")
    state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(state, half / "model.safetensors", {"format": "pt"})
    config = json.loads((half / "config.json").read_text())
    (half / "config.json").write_text(
        json.dumps(config | {"dtype": "float16", "torch_dtype": "float16"})
    )
    model = load_model(f"clap:{half}", "cpu")
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}
    assert_near(
        model.encode_text(PROMPTS), load_model(f"clap:{folder}", "cpu").encode_text(PROMPTS), 0.01
    )


def break_weights(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def cut_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def edit_state(change):
    def edit(folder):
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", {"format": "pt"})

    return edit


def edit_json(section, **values):
    def edit(folder):
        config = json.loads((folder / "config.json").read_text())
        config[section].update(values)
        (folder / "config.json").write_text(json.dumps(config))

    return edit


def set_truncation(folder):
    processor = transformers.ClapProcessor.from_pretrained(folder)
    processor.feature_extractor.truncation = "fusion"
    processor.save_pretrained(folder)


def remove(*starts):
    def edit(folder):
        for file in folder.iterdir():
            if file.name.startswith(starts):
                file.unlink()

    return edit


LAYER = "text_projection.linear1.weight"
BROKEN = {
    "no safetensors file is in it": break_weights,
    "cannot be loaded as a CLAP model": cut_weights,
    "config.json is missing": lambda folder: (folder / "config.json").unlink(),
    f"missing: {LAYER}": edit_state(lambda state: state.pop(LAYER)),
    "unexpected: decoder.weight": edit_state(
        lambda state: state.update({"decoder.weight": torch.ones(2)})
    ),
    f"not finite: {LAYER}": edit_state(lambda state: state[LAYER].fill_(math.nan)),
    "belongs to a model with feature fusion": set_truncation,
    "padding is token 1 of the tokenizer, and 3 of": edit_json("text_config", pad_token_id=3),
    f"mismatched: {LAYER}": edit_state(lambda state: state.update({LAYER: torch.ones(8, 8)})),
    "the tokenizer is missing .tokenizer.json or vocab.json with": remove("tokenizer", "vocab"),
    "the processor's config is missing .*save_pretrained": remove("processor_", "preprocessor_"),
    "logit_scale_a is 800": edit_state(lambda state: state["logit_scale_a"].fill_(800.0)),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_folder_that_is_wrong_says_what(folder, tmp_path, message, capfd):
    copy = shutil.copytree(folder, tmp_path / "broken")
    BROKEN[message](copy)
    with pytest.raises(CheckpointError, match=message):
        load_model(f"clap:{copy}", "cpu")
    assert "LOAD REPORT" not in "".join(capfd.readouterr())  # the library's, of a hundred lines


def test_a_name_without_its_kind_says_which(folder):
    with pytest.raises(CheckpointError, match="is a folder.*clap:FOLDER"):
        load_model(folder)
    with pytest.raises(CheckpointError, match="ClapModel: load its folder as clap:FOLDER"):
        load_model(folder / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="behind clap: goes a folder"):
        load_model("clap:")


@pytest.mark.parametrize("name", ["laion/clap-htsat-unfused", "laion/clap-htsat-unfused@main"])
@pytest.mark.parametrize("prefix", ["", "clap:"])
@pytest.mark.parametrize("kind", [ConnectionError, type("HttpError", (Exception,), {})])
def test_without_a_network_a_hub_name_needs_a_commit(name, prefix, kind, tmp_path, monkeypatch):
    def no_network(*arguments):
        raise kind("no route")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("palmkit.models.clap.ask_hub", no_network)
    with pytest.raises(FileNotFoundError, match="no route.*laion/clap-htsat-unfused@COMMIT, 40"):
        load_model(prefix + name, "cpu")


def test_of_a_hub_name_alone_the_present_commit_is_taken_and_said(monkeypatch, caplog):
    asked, loaded, commit = [], [], "89abcdef" * 5

    def answer(*question):
        asked.append(question)
        return commit

    def load(*arguments):
        loaded.append(arguments)
        raise CheckpointError("enough")

    monkeypatch.setattr("palmkit.models.clap.ask_hub", answer)
    monkeypatch.setattr("palmkit.models.clap.read_pretrained", load)
    for name in ("laion/x", "clap:me/x@main"):
        with pytest.raises(CheckpointError, match="enough"):
            load_model(name, "cpu")
    assert asked == [("laion/x", None), ("me/x", "main")]
    assert [arguments[2] for arguments in loaded] == [{"revision": commit}] * 2
    assert f"laion/x@{commit}" in caplog.text


def test_what_is_known_of_a_model(folder, tmp_path):
    about = describe(load_model(f"clap:{folder}", "cpu"))
    file = folder / "model.safetensors"
    assert about["revision"] == f"sha256 of {file.name} {sha256_of(file)}"
    assert about["licence"] == about["training data"] == UNKNOWN
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "README.md").write_text("---\nlicense: cc0-1.0\n---\nA model.\n")
    assert describe(load_model(f"clap:{copy}", "cpu"))["licence"] == "cc0-1.0"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*absent'$"):
        load_model(f"clap:{tmp_path / 'absent'}")


@pytest.mark.slow
def test_a_hub_name_with_its_commit(folder, tmp_path):
    """From the hub's cache, as a download leaves it, without a network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "models--laion--clap-htsat-unfused" / "snapshots" / commit
    shutil.copytree(folder, place)
    code = (
        "from palmkit.models import load_model; import sys\n"
        f"model = load_model('laion/clap-htsat-unfused@{commit}', 'cpu')\n"
        "print(model.name, model.note, model.digest(), sep='|')"
    )
    env = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    name, note, digest = done.stdout.strip().split("|")
    assert name == "laion/clap-htsat-unfused" and commit in note and "not PENGI" in note
    assert digest == load_model(f"clap:{folder}", "cpu").digest()


def test_what_it_does_not_take(model):
    with pytest.raises(ValueError, match="480000 samples at most"):
        model.encode_audio(torch.zeros(1, 480_001))
    with pytest.raises(ValueError, match="has .* tokens; the text encoder takes 64: shorten it"):
        model.encode_text(["dog", "q" * 100])
    with pytest.raises(ValueError, match="tokens are too many"):
        model.encode_embeddings(torch.zeros(1, 60, 24), torch.zeros(1, 9, 24), torch.tensor([9]))
    with pytest.raises(TypeError, match="list of strings"):
        model.encode_text("dog")


# All the way


@pytest.fixture
def dataset(tmp_path):
    """Three classes of tones in noise, of 3 s to 10 s, so that no clip is cropped."""
    return tones.write_tone_dataset(tmp_path / "tones", NAMES[:3], RATE, (10, 7, 5, 3))


@pytest.mark.slow
def test_trials(model, library, dataset, tmp_path):
    """Rows are as from the library's embeddings of the same files, learned from by hand."""
    check_trials(model, dataset, tmp_path, lambda waves: library_audio(library, waves))


@pytest.mark.slow
def test_other_weights_are_another_model(model, tmp_path):
    other = load_model(f"clap:{save_clap(tmp_path, seed=1)}", "cpu")
    assert other.digest() != model.digest() and other.audio_digest() != model.audio_digest()
    assert make_clap(seed=1).logit_scale_a == 3
