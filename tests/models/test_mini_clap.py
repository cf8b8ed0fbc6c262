"""mini-CLAP: its text encoder is not causal, is exact, and comes with the kit."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from mini_pengi import __main__ as making
from mini_pengi import clap_card, clap_variant, text_tower
from mini_views import noise_views
from notebook_cells import make_tiny_dataset
from safetensors.torch import load_file, save_file

from palmkit import METHODS, embed, evaluate, fit, load_dataset, load_model, load_pengi
from palmkit.cli import main
from palmkit.experiments import make_grid, run_trials
from palmkit.models import AudioTextModel, CheckpointError, Pengi, PromptableText, StochasticText
from palmkit.models.about import (
    default_settings,
    describe,
    has_pengi_design,
    is_pengi,
    not_pengi_note,
)
from palmkit.models.base import find_missing
from palmkit.models.check import check_model
from palmkit.models.mini_clap import MINI_CLAP, load_mini_clap, random_tokens
from palmkit.models.pengi import MINI
from palmkit.models.stages import make_stages, tuned_pengi
from palmkit.protocols.prompt_files import load_prompt, save_prompt
from palmkit.protocols.train_mode import with_bn_statistics
from palmkit_synthetic.concepts import TRAINING
from palmkit_synthetic.tasks import DEFAULT_TASKS, TASKS

ROOT = Path(__file__).resolve().parents[2]
FIGURES = pd.read_csv(MINI_CLAP.parent / "figures.csv")
NAMES = ["dog", "church bells", "a very long name of a thing", "rain"]


@pytest.fixture(scope="module")
def model():
    return load_model("mini-clap", device="cpu")


@pytest.fixture(scope="module")
def mini():
    return load_model("mini", device="cpu")


def reference_text(model, tokens, heads=4):
    """Token embeddings [s, width] of one sentence without padding -> [dim], from the state alone.

    Written with torch.nn.functional: a sentence at a time, so no mask and no position can be wrong.
    """
    state = {name: tensor.detach() for name, tensor in model.text.state_dict().items()}

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    x = tokens + state["position_embedding.weight"][: len(tokens)]
    for n in range(2):
        layer = f"layers.{n}"
        y = norm(x, f"{layer}.layer_norm1")
        q, k, v = (
            linear(y, f"{layer}.{name}_proj").reshape(len(y), heads, -1).transpose(0, 1)
            for name in "qkv"
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
        x = x + linear(y, f"{layer}.out_proj")
        y = linear(norm(x, f"{layer}.layer_norm2"), f"{layer}.fc1")
        x = x + linear(y * torch.sigmoid(1.702 * y), f"{layer}.fc2")
    first = norm(x[0], "final_layer_norm")
    e = linear(linear(first, "clip_text_projection"), "projection.linear1")
    return norm(e + linear(F.gelu(e), "projection.linear2"), "projection.layer_norm")


def true_tokens(model, text):
    ids, mask = model.tokenize([text])
    return model.embed_tokens(ids)[0, : int(mask.sum())]


# What it is


def test_it_follows_the_protocols(model):
    for protocol in (AudioTextModel, PromptableText, StochasticText):
        assert not find_missing(model, protocol)
    check_model(model)
    assert isinstance(model, Pengi)  # PENGI's input, and its audio encoder with stages
    assert (model.sample_rate, model.clip_seconds, model.dim) == (44_100, 7.0, 256)
    assert model.name == "mini-CLAP" and model.prompt == "This is a sound of {}."
    assert "neither PENGI's nor LAION-CLAP's" in model.note
    frozen = [*model.audio.parameters(), *model.text.parameters()]
    assert not any(parameter.requires_grad for parameter in frozen)


def test_the_logit_scale_is_the_one_that_training_ended_with(model):
    log = json.loads((MINI_CLAP.parent / "log.json").read_text())["text_log"]
    assert model.logit_scale == log[-1]["scale"] != 100
    method = METHODS["zeroshot"](model, NAMES)
    assert method.logit_scale == model.logit_scale


def test_it_says_what_it_is_and_stands_beside_no_published_number(model):
    about = describe(model)
    assert about["licence"] == "MIT" and "generated" in about["training data"]
    assert about["revision"] == f"sha256 {model.checkpoint_sha256}"
    assert not is_pengi(model) and not has_pengi_design(model)
    assert not_pengi_note(model) == model.note
    assert default_settings(model) == {"lr": 0.05}


def test_each_of_its_parts_tells_it_from_mini_pengi(model, mini):
    assert model.digest() != mini.digest() and model.audio_digest() != mini.audio_digest()
    assert model.digest("text") != mini.digest("text")
    config = model.config | {"logit_scale": 50.0}
    other = type(model)(model.audio, model.text, config, model.device)
    assert other.digest() != model.digest()
    causal = Pengi(model.audio, model.text, model.config | {"text": mini.config["text"]},
                   model.device)  # fmt: skip
    assert causal.digest() != model.digest()


# The text encoder


def test_it_is_not_causal(model, mini):
    """A later token changes what stands at earlier ones; in mini-PENGI it does not."""
    tokens = true_tokens(model, "a dog barks")[None].clone()
    changed = tokens.clone()
    changed[0, -2] = true_tokens(model, "rain")[1]
    padding = torch.zeros(1, tokens.shape[1], dtype=torch.bool)
    one, other = (model.text.hidden_states(x, padding) for x in (tokens, changed))
    assert (one - other).abs().max() > 1e-2
    keys = [mini.text.prefix(x)[1][0][..., :-2, :] for x in (tokens, changed)]
    assert torch.equal(*keys)


def test_every_token_counts(model):
    """By gradient: of the embedding with respect to each token of a sentence."""
    tokens = true_tokens(model, "a dog barks").clone().requires_grad_()
    sizes = torch.tensor([len(tokens) - 1])
    text = model.encode_embeddings(tokens[None, :1], tokens[None, 1:], sizes)
    text[0, 0, 3].backward()
    assert (tokens.grad.abs().amax(1) > 1e-8).all()


@pytest.mark.parametrize("text", ["dog", "This is a sound of church bells.", "x " * 37])
def test_a_text_equals_the_reference(model, text):
    with torch.no_grad():
        expected = F.normalize(reference_text(model, true_tokens(model, text)), dim=-1)
    assert (model.encode_text([text])[0] - expected).abs().max() < 1e-12


def test_a_text_depends_on_no_other_and_on_no_padding(model):
    alone = torch.cat([model.encode_text([name]) for name in NAMES])
    assert (model.encode_text(NAMES) - alone).abs().max() < 1e-6
    assert (model.encode_text(NAMES[::-1]).flip(0) - alone).abs().max() < 1e-6
    tokens = true_tokens(model, "dog")
    prefix, suffix = tokens[None, :1], tokens[None, 1:]
    sizes = torch.tensor([suffix.shape[1]])
    short = model.encode_embeddings(prefix, suffix, sizes)
    noise = 100 * torch.ones(1, 5, model.text_width, dtype=suffix.dtype)
    padded = model.encode_embeddings(prefix, torch.cat([suffix, noise], 1), sizes)
    assert (short - padded).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["coop", "cocoop"])
def test_gradients_of_prompts_equal_the_reference(model, name):
    """COOP and COCOOP, with names of several lengths and a context for each clip."""
    generator = torch.Generator().manual_seed(0)
    audio = F.normalize(torch.randn(3, model.dim, generator=generator, dtype=model.dtype), dim=-1)
    labels = torch.tensor([0, 2, 3])
    method = METHODS[name](model, NAMES, seed=1)
    F.cross_entropy(method(audio), labels).backward()
    gradients = {key: value.grad.clone() for key, value in method.named_parameters()}
    method.zero_grad()
    logits = []
    for clip in audio:
        context = method.context
        if name == "cocoop":
            context = context + method.meta_net(clip)
        rows = []
        for word in NAMES:
            ids, mask = model.tokenize([f"{'X ' * 16}{word}."])
            tokens = model.embed_tokens(ids)[0, : int(mask.sum())]
            sentence = torch.cat([tokens[:1], context, tokens[17:]])
            rows.append(F.normalize(reference_text(model, sentence), dim=-1) @ clip)
        logits.append(model.logit_scale * torch.stack(rows))
    F.cross_entropy(torch.stack(logits), labels).backward()
    assert {*gradients} == {key for key, _ in method.named_parameters()}
    for key, value in method.named_parameters():
        assert value.grad.abs().max() > 1e-4, key
        assert (gradients[key] - value.grad).abs().max() < 1e-8, key


def test_coop_from_the_prompt_is_zero_shot(model):
    audio = F.normalize(torch.randn(5, model.dim, generator=torch.Generator().manual_seed(0)))
    coop = METHODS["coop"](model, NAMES, init="text")
    zero_shot = METHODS["zeroshot"](model, NAMES)
    assert (coop(audio) - zero_shot(audio)).abs().max() < 1e-6
    assert coop.context_length == 5  # this is a sound of


# What takes a model of PENGI's kind apart and puts it together


@pytest.mark.slow
def test_copies_with_other_audio_parts_keep_the_text_side(model, tmp_path):
    """ASPL's stages, other statistics of bn0, and a loaded prompt."""
    clip = torch.randn(1, 308_700, generator=torch.Generator().manual_seed(0)) / 10
    method = METHODS["coop"](model, NAMES)
    save_prompt(tmp_path / "prompt.pt", method)
    copies = [
        tuned_pengi(model, make_stages(model, ["log_mel"], "this test")),
        with_bn_statistics(model),
        load_prompt(tmp_path / "prompt.pt", METHODS["coop"](model, NAMES, seed=3)),
    ]
    for copy in copies:
        assert type(copy) is type(model) and copy.note == model.note
        assert (copy.logit_scale, copy.prompt) == (model.logit_scale, model.prompt)
        assert torch.equal(copy.encode_text(NAMES), model.encode_text(NAMES))
        assert torch.equal(copy.encode_audio(clip), model.encode_audio(clip))
    for copy in copies[1:]:
        assert copy.digest() == model.digest()


def test_stored_prompts_of_the_other_model_are_told_apart(mini, tmp_path):
    save_prompt(tmp_path / "prompt.pt", METHODS["palm"](mini, NAMES))
    from palmkit.results.prediction import PredictionError, load_predictor

    with pytest.raises(PredictionError, match="other weights|weights"):
        load_predictor(prompt=tmp_path / "prompt.pt", checkpoint="mini-clap", device="cpu")


# The file


def test_it_is_small_and_has_what_training_changed(model):
    assert MINI_CLAP.stat().st_size < 2_500_000 < MINI.stat().st_size
    tensors = load_file(MINI_CLAP)
    ids, rows = tensors["token_ids"].long(), tensors["token_rows"]
    config = json.loads((MINI_CLAP.parent / "config.json").read_text())
    std = config["text"]["token_std"]
    table = model.text.token_embedding.weight
    before = random_tokens(64, std).half().double()
    kept = torch.ones(len(table), dtype=torch.bool)
    kept[ids] = False
    assert torch.equal(table[kept], before[kept]) and torch.equal(table[ids], rows.double())
    assert 300 < len(ids) < 3000 and len(set(ids.tolist())) == len(ids)
    assert before.std().item() == pytest.approx(std, rel=1e-2)
    assert abs(before.mean().item()) < 1e-3 * std * 3


def test_random_tokens_are_these_numbers():
    """The same on every machine: SplitMix64 started at 0 gives these integers first."""
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    expected = [((x >> 11) + 0.5) / 2**53 - 0.5 for x in first]
    got = random_tokens(64, 12**-0.5)[0, :3].tolist()
    assert got == pytest.approx(expected, abs=1e-15)


def copy_model(folder):
    for name in ("mini_clap.safetensors", "config.json"):
        shutil.copy(MINI_CLAP.parent / name, folder / name)
    return folder / "mini_clap.safetensors"


def test_the_digest_is_of_the_file(model, tmp_path):
    path = copy_model(tmp_path)
    assert load_mini_clap("cpu", path).digest() == model.digest()
    tensors = load_file(path)
    tensors["token_rows"][0, 0] += 1
    save_file(tensors, path)
    assert load_mini_clap("cpu", path).digest() != model.digest()


@pytest.mark.parametrize(
    "name", ["token_ids", "token_rows", "caption_encoder.projection.linear1.weight"]
)
def test_a_file_without_a_tensor_is_refused(tmp_path, name):
    path = copy_model(tmp_path)
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=name):
        load_mini_clap("cpu", path)


@pytest.mark.parametrize("change", [{"logit_scale": None}, {"text": {}}, {"logit_scale": -1.0}])
def test_a_config_without_scale_or_spread_is_refused(tmp_path, change):
    path = copy_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match="logit_scale"):
        load_mini_clap("cpu", path)


def test_it_cannot_be_taken_for_a_causal_one(tmp_path):
    with pytest.raises(CheckpointError, match="token_embedding"):
        load_pengi(copy_model(tmp_path), "cpu")


# How it was made


def test_card_manifest_and_log(model):
    text = (MINI_CLAP.parent / "MODEL_CARD.md").read_text()
    beside = pd.read_csv(MINI.parent / "figures.csv").query("training_seed == 0")
    assert text == clap_card.write_card(MINI_CLAP.parent, FIGURES, beside)
    checksum = hashlib.sha256(MINI_CLAP.read_bytes()).hexdigest()
    assert checksum == model.checkpoint_sha256 and checksum in text
    with open(ROOT / "data_manifest.csv", newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["name"] == "mini-clap"]
    assert row["checksum"] == f"sha256:{checksum}"
    assert int(row["bytes"]) == MINI_CLAP.stat().st_size
    settings = json.loads((MINI_CLAP.parent / "log.json").read_text())["settings"]
    more = {"layers": text_tower.LAYERS, "gain": text_tower.GAIN, "variant": "clap"}
    assert settings["text"] == text_tower.TEXT | more
    assert settings["seed"] == clap_variant.SHIPPED
    mini_settings = json.loads((MINI.parent / "log.json").read_text())["settings"]
    assert settings["corpus"] == mini_settings["corpus"]


def test_figures_are_whole():
    zero_shot = FIGURES[FIGURES["kind"] == "method"].groupby("dataset")["accuracy"].mean()
    assert all(zero_shot[name] > 1.3 / len(TASKS[name].classes) for name in DEFAULT_TASKS)
    wordings = FIGURES[FIGURES["kind"] == "wording"]
    assert wordings["method"].nunique() == 9 and set(wordings["dataset"]) == set(DEFAULT_TASKS)


@pytest.mark.slow
def test_it_classifies_as_its_figures_say(model, tmp_path):
    """Zero-shot on a task, from the sounds on."""
    data = load_dataset("VocalSounds", 1)
    test = embed(model, data.test, cache=tmp_path)
    method = METHODS["zeroshot"](model, data.class_names)
    got = evaluate(method, test.features, test.labels)["accuracy"]
    chosen = FIGURES.query("kind == 'method' and dataset == 'VocalSounds' and fold == 1")
    assert got == pytest.approx(chosen["accuracy"].item(), abs=2.5 / len(test.labels))


@pytest.mark.slow
def test_making_it_in_two_steps(tmp_path, monkeypatch, mini):
    """From an audio encoder and its views to a file that is loaded; made once only."""
    trunk, out = tmp_path / "trunk", tmp_path / "clap"
    trunk.mkdir()
    for name in ("mini.safetensors", "config.json", "log.json"):
        shutil.copy(MINI.parent / name, trunk / name)
    views = noise_views(list(TRAINING)[:70], 140)
    clap_variant.add_clap_text(trunk, out, views, 1, steps=2, batch=20)
    made = load_mini_clap("cpu", out / clap_variant.FILE)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    clap_variant.add_clap_text(trunk, out, views, 1, steps=2, batch=20)
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert torch.equal(made.audio.bn0.weight, mini.audio.bn0.weight)
    assert made.logit_scale == pytest.approx(1 / 0.07, rel=0.1)
    assert torch.isfinite(made.encode_text(NAMES)).all()
    FIGURES.to_csv(out / "figures.csv", index=False)
    monkeypatch.setattr(clap_variant, "SHIPPED", 1)
    making.publish_clap(out, 0, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    making.publish_clap(out, 1, tmp_path / "package")
    assert made.checkpoint_sha256 in (tmp_path / "package" / "MODEL_CARD.md").read_text()


# In use


@pytest.mark.slow
def test_the_command_line_takes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PALMKIT_RUNS", str(tmp_path / "runs"))
    arguments = ["run", "--checkpoint", "mini-clap", "--profile", "quick", "--dataset"]
    arguments += ["GermanEmotions", "--method", "zeroshot", "palm", "coop", "--epochs", "2"]
    assert main([*arguments, "--name", "one"]) == 0
    from palmkit.results import load_rows

    rows = load_rows(tmp_path / "runs" / "one")
    assert set(rows["method"]) == {"zeroshot", "palm", "coop"}
    assert rows["model_note"].str.contains("mini-CLAP").all()
    assert set(rows["weights"]) == {load_model("mini-clap", "cpu").digest()}


@pytest.mark.slow
def test_the_released_protocol_is_defined_for_it(model, tmp_path, monkeypatch):
    """Its audio encoder and projections are PENGI's, so they have a train mode."""
    monkeypatch.setenv("PALMKIT_CACHE", str(tmp_path / "cache"))
    folder = make_tiny_dataset(tmp_path / "tiny")
    settings = dict(shots=1, epochs=2, protocol="released")
    trials = make_grid(["palm", "coop"], [str(folder)], "first", [0], **settings)
    before = model.digest()
    rows = run_trials(trials, model, tmp_path / "run")
    assert [row["protocol"] for row in rows] == ["released"] * 2
    assert all(row["weights"] == before == model.digest() for row in rows)
    assert all(len(row["losses"]) == 2 for row in rows)


def test_palm_learns_on_it(model):
    generator = torch.Generator().manual_seed(0)
    means = F.normalize(torch.randn(4, model.dim, generator=generator))
    labels = torch.arange(24) % 4
    features = F.normalize(means[labels] + 0.05 * torch.randn(24, model.dim, generator=generator))
    method = METHODS["palm"](model, NAMES, seed=0)
    losses = fit(method, features, labels, epochs=20, batch_size=8)
    assert losses[-1] < 0.5 * losses[0]
