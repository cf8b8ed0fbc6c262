"""ASPL: gains and biases inside the audio encoder, with gradients through it."""

import copy
import json
import re

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from noise import write_clips
from outside import few, make_home, read_rows  # noqa: F401
from safetensors.torch import load_file
from small_pengi import small_pengi
from toy_models import BidirectionalModel

from palmkit import METHODS, embed, evaluate, fit, load_pengi, predict
from palmkit.audio import AudioError
from palmkit.cli import main
from palmkit.data import Dataset
from palmkit.experiments.clip_sources import EmbedSettings, UnembeddedClips
from palmkit.experiments.estimate import estimate_cost
from palmkit.experiments.one_trial import run_trial
from palmkit.experiments.timing import Clock
from palmkit.experiments.trials import RIVAL_NAMES, Trial
from palmkit.methods import TUNED, aspl, check_class
from palmkit.methods.aspl import read_inputs
from palmkit.models.random import random_pengi
from palmkit.models.stages import ChannelAffine, TunedAudio
from palmkit.protocols.prompt_files import PromptError, load_prompt, save_prompt
from palmkit.protocols.streams import embed_stream
from palmkit.published import paper_datasets
from palmkit.results.prediction import load_predictor
from palmkit.widgets.session import train

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]
NAMES = ["bell", "dog", "rain"]
NAMED = [cls.name for cls in TUNED]
BASES = {name: name.partition("-")[0] for name in NAMED}  # the prompt method of each


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Six clips of noise, the last two longer than 7 s, as a table with labels."""
    folder = tmp_path_factory.mktemp("clips")
    paths = write_clips(folder / "short", 4) + write_clips(folder / "long", 2, 8)
    return pd.DataFrame({"path": paths, "label": [0, 1, 2] * 2})


@pytest.fixture(scope="module")
def small():
    return small_pengi(pytest.MonkeyPatch())


@pytest.fixture(scope="module")
def double():
    return small_pengi(pytest.MonkeyPatch(), "float64")


@pytest.fixture(scope="module")
def mini():
    return load_pengi("mini", "cpu")


@pytest.fixture(scope="module")
def inputs(small, clips):
    return read_inputs(small, clips)


@pytest.fixture(params=NAMED)
def name(request):
    return request.param


def disturb(method, size=0.2, seed=0):
    """Gains and biases off 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in method.stages.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data += (size * noise).to(parameter)
    return method


# Names, sizes, refusals.


def test_the_classes(name):
    cls = METHODS[name]
    check_class(cls)
    assert cls.tunes_audio and cls.learns and not cls.own_fit and not cls.in_paper
    assert name in RIVAL_NAMES and "arXiv 2606.15751" in cls.__doc__
    assert cls.label.endswith("*") == name.endswith("star")


@pytest.fixture(scope="module")
def full_size():
    return random_pengi("cpu")


def test_320_and_704_numbers_at_pengi_s_size(name, full_size):
    method, plain = (METHODS[one](full_size, NAMES) for one in (name, BASES[name]))
    sizes = {stage: module.gain.numel() for stage, module in method.stages.items()}
    expected = {"log_mel": 64, "patches": 96, "stage1": 192}
    if not name.endswith("star"):
        del expected["stage1"]
    assert sizes == expected
    added = sum(parameter.numel() for parameter in method.stages.parameters())
    assert added == (704 if name.endswith("star") else 320)
    total, alone = (sum(p.numel() for p in one.parameters()) for one in (method, plain))
    assert total == alone + added
    assert method.input_shape == (965, 64)


def test_a_model_without_stages_is_refused_by_name(name):
    message = (
        rf"^{re.escape(METHODS[name].label)} needs the stages log_mel, patches.* of PENGI's audio "
        "encoder with their gradients, which bidirectional does not have$"
    )
    with pytest.raises(ValueError, match=message):
        METHODS[name](BidirectionalModel(), NAMES)


@pytest.mark.parametrize("value", [-0.1, "x", True, float("nan"), float("inf")])
def test_wrong_rates(value, small):
    with pytest.raises(ValueError, match="^audio_lr=.*: use a number from 0 on, or None"):
        METHODS["palm-aspl"](small, NAMES, audio_lr=value)


def test_what_a_trial_refuses(name):
    with pytest.raises(ValueError, match=f"^{name} is for the frozen protocol"):
        Trial(name, "x", protocol="released")
    with pytest.raises(ValueError, match=f"^pca_dim: its axes .* {name} changes"):
        Trial(name, "x", options={"pca_dim": 3})
    with pytest.raises(ValueError, match="no options to choose from"):
        Trial(name, "x", regime="support")
    assert Trial(name, "x", options={"audio_lr": 0.1}).options == {"audio_lr": 0.1}


def test_embeddings_are_refused(small):
    """`fit` takes log-mels: embeddings would leave the audio encoder out."""
    method = METHODS["palm-aspl"](small, NAMES)
    with pytest.raises(ValueError, match=rf"must be \[n, {method.input_dim}\]"):
        fit(method, torch.randn(6, small.dim), [0, 1, 2] * 2)


# The encoder.


@pytest.mark.parametrize("name", ["palm-aspl", "palm-aspl-star"])
@pytest.mark.parametrize("model_name", ["small", "double", "tiny_pengi", "mini"])
def test_gain_1_and_bias_0_change_no_bit(name, model_name, clips, request):
    """In training and at test, the embeddings are those of `encode_audio`."""
    model = request.getfixturevalue(model_name)
    plain = embed(model, clips, cache=None)
    support = read_inputs(model, clips)
    method = METHODS[name](model, NAMES)
    assert support.features.dtype == model.dtype
    assert support.features.shape == (6, method.input_dim)
    assert support.offsets == plain.offsets and any(plain.offsets)
    assert torch.equal(support.labels, plain.labels)
    with torch.no_grad():
        trained = method.encode_inputs(support.features).float()
    assert torch.equal(trained, plain.features)
    tested = method.audio_model()
    assert torch.equal(embed(tested, clips, cache=None).features, plain.features)
    assert tested.digest("text") == model.digest("text") and tested.digest() != model.digest()


def test_where_the_stages_are(double, clips):
    """The same by hooks of PyTorch on a copy of the encoder: before bn0, after the patch embedding,
    and after the merging that ends HTS-AT's first stage.
    """
    method = disturb(METHODS["palm-aspl-star"](double, NAMES))
    stages, log_mels = method.stages, read_inputs(double, clips).features
    encoder = copy.deepcopy(double.audio).eval()

    def before_bn0(module, args):  # [n, mel, frames, 1]
        return stages["log_mel"](args[0].transpose(1, 3)).transpose(1, 3)

    encoder.bn0.register_forward_pre_hook(before_bn0)
    for module, stage in (
        (encoder.trunk.patch_embed, "patches"),
        (encoder.trunk.layers[1].downsample, "stage1"),
    ):
        module.register_forward_hook(lambda module, args, out, stage=stage: stages[stage](out))
    with torch.no_grad():
        image = encoder.image(log_mels.unflatten(1, method.input_shape))
        expected = F.normalize(encoder.projection(encoder.pooled(image)), dim=-1)
        got = method.encode(log_mels)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    for stage in stages:  # each of them matters
        plain = METHODS["palm-aspl-star"](double, NAMES)
        plain.stages[stage].load_state_dict(stages[stage].state_dict())
        other = METHODS["palm-aspl-star"](double, NAMES)
        with torch.no_grad():
            moved = (plain.encode(log_mels) - other.encode(log_mels)).abs().max()
        assert moved > 1e-3, stage


@pytest.mark.slow
@pytest.mark.parametrize("name", ["palm-aspl", "palm-aspl-star"])
def test_gradients_are_finite_differences(name, double, clips):
    """Of every gain and every bias, in double precision; off the starting point."""
    method = disturb(METHODS[name](double, NAMES, scale=20), 0.05)
    support = read_inputs(double, clips)
    features, labels = support.features[:4], support.labels[:4]

    def loss():
        return F.cross_entropy(method(method.encode(features)), labels)

    loss().backward()
    checked = 0
    for key, parameter in method.stages.named_parameters():
        step = 1e-5
        numeric = torch.empty_like(parameter)
        with torch.no_grad():
            for n in range(parameter.numel()):
                before = parameter[n].item()
                ends = []
                for moved in (before + step, before - step):
                    parameter[n] = moved
                    ends.append(loss().item())
                parameter[n] = before
                numeric[n] = (ends[0] - ends[1]) / (2 * step)
                checked += 1
        assert numeric.abs().max() > 1e-4, key
        torch.testing.assert_close(parameter.grad, numeric, rtol=1e-5, atol=1e-7)
    width = double.audio.trunk.patch_embed.proj.out_channels
    assert checked == 2 * (64 + width + (2 * width if name.endswith("star") else 0))


def test_the_rounding_of_embeddings_has_no_gradient_of_its_own(double, clips):
    method = METHODS["palm-aspl"](double, NAMES)
    features = read_inputs(double, clips).features[:2]
    weights = torch.randn(2, double.dim, generator=torch.Generator().manual_seed(0))
    gradients = []
    for function in (method.encode, method.encode_inputs):
        method.zero_grad()
        (function(features) * weights).sum().backward()
        gradients.append(method.stages["patches"].gain.grad.clone())
    assert not torch.equal(method.encode(features), method.encode_inputs(features))
    assert torch.equal(*gradients)


def test_train_mode_takes_gain_and_bias_at_the_log_mel_out_again(double, clips):
    """Why ASPL is for the frozen protocol: bn0 in train mode normalises each band of the batch."""
    log_mel = read_inputs(double, clips).features.unflatten(1, (-1, 64))
    affine = ChannelAffine(double.audio.bn0.weight)
    affine.gain.data.uniform_(0.5, 2)
    affine.bias.data.normal_(0, 3)
    encoder = copy.deepcopy(double.audio)
    differences = {}
    for training in (True, False):
        encoder.bn0.train(training)
        with torch.no_grad():
            one, two = encoder.image(log_mel), encoder.image(affine(log_mel))
        differences[training] = ((one - two).abs().max() / one.abs().max()).item()
    assert differences[True] < 1e-6 and differences[False] > 0.01


# Training.


def test_a_rate_of_0_in_the_encoder_is_the_prompt_method(name, small, clips, inputs):
    """Bit for bit: losses and what is learned."""
    plain = METHODS[BASES[name]](small, NAMES, seed=3)
    tuned = METHODS[name](small, NAMES, seed=3, audio_lr=0)
    features = embed(small, clips, cache=None).features
    settings = {"epochs": 3, "batch_size": 4, "lr": 0.02, "seed": 3}
    expected = fit(plain, features, inputs.labels, **settings)
    assert fit(tuned, inputs.features, inputs.labels, **settings) == expected
    state = tuned.prompt_learner_state()
    learned = plain.prompt_learner_state()
    assert all(torch.equal(state[key], value) for key, value in learned.items())
    others = {key: value for key, value in state.items() if key not in learned}
    assert all(key.startswith("stages.") for key in others) and others
    assert all((value == ("gain" in key)).all() for key, value in others.items())


def test_a_fit_changes_every_stage_and_no_weight(name, small, inputs):
    before = small.digest()
    method = METHODS[name](small, NAMES)
    fit(method, inputs.features, inputs.labels, epochs=2, lr=0.01)
    assert small.digest() == before
    assert not any(one.requires_grad for one in small.audio.parameters())
    assert all(one.grad is None for one in small.audio.parameters())
    for key, value in method.stages.state_dict().items():
        assert (value != ("gain" in key)).any(), key


def test_a_step_by_hand(double, clips):
    """Two rates: the prompt's and the encoder's."""
    support = read_inputs(double, clips)
    settings = {"lr": 0.02, "batches": [range(6)]}
    for audio_lr, rate in ((None, 0.02), (0.5, 0.5)):
        method = METHODS["palm-aspl"](double, NAMES, audio_lr=audio_lr)
        by_hand = METHODS["palm-aspl"](double, NAMES)
        logits = by_hand(by_hand.encode_inputs(support.features))
        F.cross_entropy(logits, support.labels).backward()
        fit(method, support.features, support.labels, **settings)
        for (key, got), start in zip(method.named_parameters(), by_hand.parameters(), strict=True):
            step = rate if key.startswith("stages.") else 0.02
            torch.testing.assert_close(got.data, start.data - step * start.grad, msg=key)


@pytest.mark.slow
def test_it_learns_and_repeats(name, small, inputs):
    runs = []
    for _ in range(2):
        method = METHODS[name](small, NAMES, seed=1)
        losses = fit(method, inputs.features, inputs.labels, epochs=12, lr=0.01, seed=1)
        runs.append((losses, method.prompt_learner_state()))
    assert runs[0][0] == runs[1][0] and runs[0][0][-1] < runs[0][0][0]
    assert all(torch.equal(runs[0][1][key], runs[1][1][key]) for key in runs[0][1])


def test_other_crops_in_each_epoch(small, clips):
    """A table [epochs, n, width] is taken as everywhere."""
    tables = [read_inputs(small, clips, crop_seed=n) for n in range(2)]
    assert tables[0].offsets != tables[1].offsets
    several = torch.stack([table.features for table in tables])
    method = METHODS["palm-aspl"](small, NAMES)
    losses = fit(method, several, tables[0].labels, epochs=2, lr=0.01)
    assert len(losses) == 2 and all(loss == loss for loss in losses)


# Clips.


def test_a_clip_that_cannot_be_read(small, clips, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"nothing")
    frame = pd.concat([clips, pd.DataFrame({"path": [str(bad)], "label": [0]})], ignore_index=True)
    frame.attrs["csv"] = "train.csv"
    with pytest.raises(AudioError, match=r"bad\.wav: .*\(row 6 of train\.csv\)"):
        read_inputs(small, frame)


def test_memory_has_a_limit(small, clips, monkeypatch):
    width = METHODS["palm-aspl"](small, NAMES).input_dim
    monkeypatch.setattr(aspl, "MOST_BYTES", 4 * width * 5)
    assert len(read_inputs(small, clips[:5]).labels) == 5
    with pytest.raises(ValueError, match="log-mels of 6 clips take .* draw fewer shots"):
        read_inputs(small, clips)


# States.


def test_state_round_trip(name, small, clips, inputs, tmp_path):
    """What was learned in the encoder comes back with the prompt."""
    method = METHODS[name](small, NAMES, audio_lr=0.03)
    fit(method, inputs.features, inputs.labels, epochs=2, lr=0.01)
    tested = embed(method.audio_model(), clips, cache=None).features
    expected = predict(method, tested)
    assert not torch.equal(tested, embed(small, clips, cache=None).features)
    fresh = METHODS[name](small, NAMES, seed=1)
    fresh.load_prompt_learner(method.prompt_learner_state())
    assert torch.equal(embed(fresh.audio_model(), clips, cache=None).features, tested)
    path = tmp_path / "prompt.pth"
    save_prompt(path, method)
    again = METHODS[name](small, NAMES, seed=2)
    model = load_prompt(path, again)
    assert torch.equal(predict(again, embed(model, clips, cache=None).features), expected)
    predictor = load_predictor(prompt=path, checkpoint=small)
    assert torch.equal(predictor.logits(clips["path"], cache=None), expected)
    assert predictor.method.audio_lr == 0.03


def test_a_later_step_does_not_change_an_audio_model(small, clips, inputs):
    method = METHODS["palm-aspl"](small, NAMES)
    model = method.audio_model()
    before = model.digest()
    fit(method, inputs.features, inputs.labels, epochs=1, lr=0.01)
    assert model.digest() == before != method.audio_model().digest()
    assert all(one.requires_grad for one in method.stages.parameters())


def test_a_state_of_another(small, tmp_path):
    star, plain = (METHODS[one](small, NAMES) for one in ("palm-aspl-star", "palm-aspl"))
    save_prompt(tmp_path / "star.pth", star)
    with pytest.raises(PromptError, match=r"unknown \['stages\.stage1\.bias"):
        load_prompt(tmp_path / "star.pth", plain)


def test_statistics_of_bn0_in_a_prompt(small, clips, tmp_path):
    """A prompt's bn0 is used together with its gains and biases."""
    method = disturb(METHODS["palm-aspl"](small, NAMES))
    bn0 = embed_stream(small, clips, epochs=1, cache=None).bn0
    save_prompt(tmp_path / "a.pth", method, bn0)
    model = load_prompt(tmp_path / "a.pth", METHODS["palm-aspl"](small, NAMES))
    assert isinstance(model.audio, TunedAudio)
    assert torch.equal(model.audio.encoder.bn0.running_mean, bn0["running_mean"])
    assert model.audio.bn0 is model.audio.encoder.bn0
    assert not torch.equal(small.audio.bn0.running_mean, bn0["running_mean"])
    assert torch.equal(model.audio.stages["patches"].gain, method.stages["patches"].gain)


# Trials.

SCORES = ("accuracy", "f1", "precision", "recall", "loss")


def test_labels_of_test_clips_change_the_score_only(name, small, clips, inputs, monkeypatch):
    """The result of a trial with the right test labels, and with permuted ones."""
    monkeypatch.setattr(Dataset, "relative", lambda self, path: str(path))
    trial = Trial(name, "tiny", 1, epochs=2, lr=0.01)
    rows, tensors = [], []
    for labels in ([0, 1, 2] * 2, [2, 1, 1, 0, 2, 0]):
        frame = clips.assign(label=labels)
        data = Dataset("tiny", "tiny", 1, NAMES, clips, frame)
        test = UnembeddedClips(frame, EmbedSettings("random", 0))
        row, kept = run_trial(trial, small, data, test, inputs)
        rows.append({k: v for k, v in row.items() if k not in ("seconds", "written")})
        tensors.append(kept)
    changed = {key for key in tensors[0] if not torch.equal(tensors[0][key], tensors[1][key])}
    assert changed == {"labels"}
    assert {key for key in rows[0] if rows[0][key] != rows[1][key]} <= {*SCORES}
    assert rows[0]["loss"] != rows[1]["loss"]
    assert rows[0]["trainable"] == sum(p.numel() for p in METHODS[name](small, NAMES).parameters())


@pytest.mark.slow
def test_a_run(home, capsys):
    """On the command line, with test clips that are cropped and damaged as for every method; then
    predictions of the row.
    """
    methods = ["palm", "palm-aspl", "palm-aspl-star", "coop-aspl"]
    options = few(home, "--name", "a", "--lr", "0.01", "--batch-size", "4")
    assert main(["run", "--method", *methods, *options]) == 0
    rows = read_rows(home, "a")
    assert {*rows} == {*methods} and not any(row["diverged"] for row in rows.values())
    assert rows["palm"]["clips"] == rows["palm-aspl"]["clips"]
    assert rows["palm"]["losses"][0] == rows["palm-aspl"]["losses"][0]  # before the first step
    assert main(["table", "a"]) == 0
    shown = capsys.readouterr().out.replace("\\", "")  # Markdown escapes the star
    assert all(METHODS[name].label in shown for name in methods)
    folder = home / "runs" / "a" / "rows" / "tiny"
    (path,) = (one for one in folder.glob("*.json") if "palm-aspl-split" in one.name)
    kept = load_file(path.with_suffix(".safetensors"))
    paths = pd.read_csv(home / "tiny" / "test.csv")["path"]
    predictor = load_predictor(path)
    got = predictor.logits([str(home / "tiny" / one) for one in paths], cache=None)
    assert torch.equal(got, kept["logits"])
    assert json.loads(path.read_text())["trainable"] == 2 * (256 + 1) + 2 * (64 + 32)


@pytest.mark.slow
def test_a_damaged_test_set(home):
    """The corruption reaches the test clips of ASPL too."""
    logits = []
    for n, more in enumerate(([], ["--option", 'corruption=["noise", 0]'])):
        options = few(home, "--name", n, "--lr", "0.01", "--batch-size", "4", *more)
        assert main(["run", "--method", "palm-aspl", *options]) == 0
        logits.append(read_rows(home, str(n))["palm-aspl"]["loss"])
    assert logits[0] != logits[1]


def test_a_model_without_stages_in_a_run(home, caplog):
    command = ["run", "--import", str(home / "toy_model.py"), "--checkpoint", "toy"]
    assert main([*command, "--method", "palm-aspl", *few(home, "--name", "b")]) == 1
    assert "which toy does not have" in read_rows(home, "b")["palm-aspl"]["failed"]


def test_the_estimate_counts_steps_and_test_clips(small, monkeypatch):
    """Each epoch and each test clip costs an encoder's time."""
    monkeypatch.setattr(Clock, "clip", lambda self: 7.0)
    clock = Clock(small)

    def seconds(epochs, n_test):
        return clock.trial(Trial("palm-aspl", "x", epochs=epochs), NAMES, 48, n_test)

    assert 21 <= seconds(1, 3) - seconds(1, 0) < 22
    few_epochs, many = seconds(1, 0), seconds(101, 0)
    step = clock.known[next(iter(clock.known))][1]
    assert many - few_epochs == pytest.approx(300 * step) and step > 0


def test_an_estimate_leaves_its_clips_to_the_trials(small, monkeypatch):
    """Of a dataset that is not at hand, too: they are not embedded beforehand."""
    monkeypatch.setattr(Clock, "clip", lambda self: 1.0)
    about = (small, "nothing", ["VocalSound"], "first", [0])
    found = {
        methods: estimate_cost(*about[:3], methods, *about[3:], epochs=1).table.iloc[0]
        for methods in (("palm",), ("palm-aspl",), ("palm", "palm-aspl"))
    }
    tested = paper_datasets()["VocalSound"].test_clips[0]
    alone, tuned, both = (found[methods] for methods in found)
    assert not tuned["at_hand"] and tuned["clips"] == 0 < alone["clips"] == both["clips"]
    assert tested < tuned["train_s"] and alone["train_s"] < tested


def test_the_explorer_does_not_train_it():
    with pytest.raises(ValueError, match=r"^PALM \+ ASPL learns inside the audio encoder: use"):
        train(None, "palm-aspl")


def test_copies(small, inputs):
    """A copy has gains and biases of its own, and encodes with these."""
    method = disturb(METHODS["palm-aspl"](small, NAMES))
    other = copy.deepcopy(method)
    before = other.encode(inputs.features[:1])
    disturb(method, seed=1)
    assert torch.equal(other.encode(inputs.features[:1]), before)
    assert not torch.equal(method.encode(inputs.features[:1]), before)


def test_evaluation_is_on_embeddings(small, clips, inputs):
    method = METHODS["palm-aspl"](small, NAMES)
    fit(method, inputs.features, inputs.labels, epochs=8, lr=0.01)
    found = embed(method.audio_model(), clips, cache=None)
    with torch.no_grad():
        trained = method(method.encode_inputs(inputs.features))
    torch.testing.assert_close(predict(method, found.features), trained)
    scores = evaluate(method, found.features, found.labels)
    assert scores["loss"] == pytest.approx(F.cross_entropy(trained, inputs.labels).item(), rel=1e-4)
