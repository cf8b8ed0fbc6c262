"""The released protocol: each random part against its definition, and trials that run it."""

import copy
import json

import pytest
import soundfile
import torch
import torch.nn.functional as F
from noise import count_steps, embed_epochs, write_clips
from reference import relative, within
from safetensors.torch import load_file
from scipy import stats
from timm.layers import DropPath

from palmkit import METHODS, PALM, embed, evaluate, fit, load_pengi, predict
from palmkit.cli import main
from palmkit.experiments import calls as calls_module
from palmkit.experiments import run as units
from palmkit.experiments import trials
from palmkit.models.checkpoint import PENGI_CONFIG, PENGI_SIZES, build
from palmkit.protocols import prompt_files as prompts
from palmkit.protocols import train_mode
from palmkit.protocols.train_mode import (
    STOCHASTIC,
    TrainModeAudio,
    spec_augment,
    text_dropout,
    with_bn_statistics,
)
from palmkit.results import tables as results

pytestmark = pytest.mark.usefixtures("one_thread")
SAMPLES = 7 * 44_100
EXACT = 1e-4  # relative, as for embeddings
NAMES = ["bell", "dog", "rain"]


# bn0.


@pytest.mark.slow
def test_bn0_drifts_as_published(full):
    """Everything else off: statistics after the reference's batches, embeddings on them and
    after them.
    """
    pengi, table, waves = (
        load_pengi(full.checkpoint, device="cpu"),
        full.tables["bn0_train"],
        full.waves(),
    )
    before, encoder = pengi.digest(), TrainModeAudio(pengi, ["bn0"])
    for step, batch in enumerate(table["batches"]):
        embedding = encoder(encoder.precompute(waves[batch]), 0, step)
        if step == 0:
            expected = F.normalize(table["embedding_batchstats_batch0"], dim=-1)
            within(EXACT, relative(embedding, expected), "released, batch statistics", full.name)
        for name in ("running_mean", "running_var"):
            expected = table[f"{name}_{step + 1}"]
            within(
                EXACT,
                relative(encoder.bn0[name][None], expected[None]),
                f"released, bn0 {name}",
                full.name,
            )
        assert encoder.bn0["num_batches_tracked"] == table[f"num_batches_tracked_{step + 1}"]
    after = with_bn_statistics(pengi, encoder.bn0).encode_audio(waves)
    expected = F.normalize(table["embedding_after_drift"], dim=-1)
    within(EXACT, relative(after, expected), "released, bn0 after training", full.name)
    assert pengi.digest() == before


@pytest.mark.slow
def test_bn0_by_hand(tiny_pengi, clips):
    """Momentum 0.1, mean and unbiased variance over batch x frames of each band, batches as
    `fit` shuffles them.
    """
    stream = embed_epochs(tiny_pengi, clips, stochastic=["bn0"], seed=3)
    bn0, generator = tiny_pengi.audio.bn0, torch.Generator().manual_seed(3)
    mean, var = bn0.running_mean.double(), bn0.running_var.double()
    waves = torch.stack(
        [torch.from_numpy(soundfile.read(p, dtype="float32")[0]) for p in clips["path"]]
    )
    log_mels = tiny_pengi.audio.log_mel(waves.repeat(1, 28)[:, :SAMPLES]).double()
    for _ in range(2):
        for batch in torch.randperm(6, generator=generator).split(4):
            band = log_mels[batch].flatten(0, 1)
            mean, var = (
                0.9 * mean + 0.1 * band.mean(0),
                0.9 * var + 0.1 * band.var(0, unbiased=True),
            )
    within(
        1e-5,
        relative(stream.bn0["running_mean"][None], mean[None]),
        "released, running mean",
        "by hand",
    )
    within(
        1e-5,
        relative(stream.bn0["running_var"][None], var[None]),
        "released, running variance",
        "by hand",
    )
    assert stream.bn0["num_batches_tracked"] == bn0.num_batches_tracked + 4


# Stripes.


@pytest.fixture(params=["time", "mel"])
def hit(request, monkeypatch):
    """(what is set to 0 of one direction [draws, total], the width's limit) for a number of
    stripes a clip.
    """

    def draw(count, draws=8000):
        monkeypatch.setattr(train_mode, "STRIPES", count)
        total, other = (100, 8) if request.param == "time" else (40, 64)
        shape = (draws, other, total, 1) if request.param == "time" else (draws, total, other, 1)
        with train_mode.seeded(torch.device("cpu"), "test of stripes"):
            zero = spec_augment(torch.ones(shape))[..., 0] == 0
        return zero.all(1 if request.param == "time" else 2), 64 if request.param == "time" else 8

    return draw


def test_a_stripe_s_width_and_start(hit):
    """Width uniform below the limit, start uniform below total - width: the last frame is never
    reached.
    """
    zero, limit = hit(1)
    total, width, start = zero.shape[1], zero.sum(1), zero.int().argmax(1)
    assert (
        stats.chisquare(torch.bincount(width, minlength=limit)).pvalue > 1e-4
        and int(width.max()) == limit - 1
    )
    seen = width > 0
    end = start + width
    assert torch.equal(zero[seen].sum(1), (end - start)[seen])  # one piece
    assert all(bool(zero[n, start[n] : end[n]].all()) for n in range(200))
    place = ((start + 0.5) / (total - width))[seen]
    assert (
        stats.kstest(
            place + (torch.rand(len(place)) - 0.5) / (total - width[seen]), "uniform"
        ).pvalue
        > 1e-4
    )
    assert not zero[:, -1].any() and zero[:, 0].any() and zero[:, -2].any()


def test_two_stripes_each_clip_for_itself(hit):
    """How often each frame (band) is 0, with the two that PENGI has: 1 - (1 - p)^2."""
    zero, limit = hit(train_mode.STRIPES)
    draws, total = zero.shape
    place = torch.arange(total)[:, None, None]
    width = torch.arange(limit)[None, :, None]
    start = torch.arange(total)[None, None]
    covers = (start <= place) & (place < start + width) & (start < total - width)
    p = (covers.sum(2) / (total - width[..., 0])).mean(1)
    expected = 1 - (1 - p) ** 2
    error = (zero.double().mean(0) - expected) / (expected * (1 - expected) / draws).sqrt().clamp(
        min=1e-9
    )
    assert train_mode.STRIPES == 2 and error[:-1].abs().max() < 4.5
    pairs = (zero[:-1] == zero[1:]).all(1)  # the same in neighbours: only by chance
    assert pairs.double().mean() < 0.05


def test_stripes_come_after_bn0_and_before_the_resize(tiny_pengi, monkeypatch):
    """They are 0, which is the mean of a band there, in frames of the log-mel; each clip and
    step has its own.
    """
    seen = []
    monkeypatch.setattr(
        train_mode,
        "spec_augment",
        lambda x, frames: seen.append((x, frames)) or spec_augment(x, frames),
    )
    encoder = TrainModeAudio(tiny_pengi, ["specaugment"], seed=5)
    log_mel = encoder.precompute(
        torch.randn(2, SAMPLES, generator=torch.Generator().manual_seed(0)) / 10
    )
    embeddings = [encoder(log_mel, 0, step) for step in (0, 1, 0)]
    assert torch.equal(embeddings[0], embeddings[2]) and not torch.allclose(
        embeddings[0], embeddings[1]
    )
    bn0 = tiny_pengi.audio.bn0(log_mel.transpose(1, 2)[..., None])
    assert seen[0][0].shape == (2, 64, 965, 1) and torch.equal(seen[0][0], bn0) and seen[0][1] == 64
    with pytest.raises(ValueError, match="stripes of 63 do not fit into 50"):
        spec_augment(torch.ones(1, 64, 50, 1))


def test_stripes_last_as_long_where_frames_come_less_often(tiny_pengi):
    """mini-PENGI's frames come every 1280 samples: 16 of them are 64 of PENGI's."""
    tiny = with_bn_statistics(tiny_pengi)
    tiny.audio.hop_size = 1280
    assert TrainModeAudio(tiny_pengi).frames == 64 and TrainModeAudio(tiny).frames == 16


# Stochastic depth and dropout.


def test_depth_is_dropped_linearly_over_pengi_s_twelve_blocks():
    with torch.device("meta"):
        audio, text = build(PENGI_SIZES, PENGI_CONFIG)
    rates = [
        [
            getattr(block, name).drop_prob if isinstance(getattr(block, name), DropPath) else 0.0
            for block in blocks
        ]
        for blocks in [[block for layer in audio.trunk.layers for block in layer.blocks]]
        for name in ("drop_path1", "drop_path2")
    ]
    expected = [n / 11 * 0.1 for n in range(12)]
    assert rates == [pytest.approx(expected, abs=1e-7)] * 2
    assert audio.projection.dropout.p == text.projection.dropout.p == 0.5


def test_depth_and_dropout_at_their_rates(tiny_pengi):
    """What the encoder's own modules let through, [draws] of ones: nothing or 1 / (1 - rate)."""
    encoder, draws = TrainModeAudio(tiny_pengi), 20_000
    paths = [module for module in encoder.encoder.trunk.modules() if isinstance(module, DropPath)]
    blocks = sum(len(layer.blocks) for layer in encoder.encoder.trunk.layers)
    expected = [0.1 * n / (blocks - 1) for n in range(1, blocks) for _ in range(2)]
    dropout = encoder.encoder.projection.dropout
    with train_mode.seeded(torch.device("cpu"), "test of rates"):
        for module, rate in [*zip(paths, expected, strict=True), (dropout, 0.5)]:
            out = module(torch.ones(draws, 1, 1, 1))
            dropped = (out == 0).double().mean().item()
            assert abs(dropped - rate) < 4.5 * (rate * (1 - rate) / draws) ** 0.5, module
            assert out.max().item() == pytest.approx(1 / (1 - rate))
    quiet = TrainModeAudio(tiny_pengi, ())
    assert not any(module.training for module in quiet.encoder.modules())


@pytest.mark.slow
def test_each_part_does_something_and_only_its_own(tiny_pengi, clips):
    """One part at a time: embeddings, and whether the statistics of bn0 change."""
    table = embed(tiny_pengi, clips, cache=None).features
    start = dict(tiny_pengi.audio.bn0.named_buffers())
    for part in STOCHASTIC:
        stream = embed_epochs(tiny_pengi, clips, stochastic=[part])
        changes = (
            not torch.equal(stream.features[0], table),
            not torch.equal(stream.features[0], stream.features[1]),
        )
        assert changes == ((part not in ("crops", "text_dropout"),) * 2), (
            part
        )  # all clips are shorter than 7 s
        moved = any(not torch.equal(stream.bn0[name], start[name]) for name in start)
        assert moved == (part == "bn0"), part


def test_a_part_draws_the_same_whatever_else_is_on(tiny_pengi, monkeypatch):
    masks = []

    def watch(x, frames):
        out = spec_augment(x, frames)
        masks.append(out == 0)
        return out

    monkeypatch.setattr(train_mode, "spec_augment", watch)
    log_mel = torch.randn(2, 965, 64)
    for parts in (["specaugment"], STOCHASTIC):
        TrainModeAudio(tiny_pengi, parts, seed=1)(log_mel, 0, 0)
    assert torch.equal(*masks)


@pytest.mark.parametrize("name", ["coop", "cocoop", "palm"])
def test_fit_on_a_stream_of_one_table(tiny_pengi, name):
    features, labels = (
        torch.randn(6, 64, generator=torch.Generator().manual_seed(0)),
        torch.arange(6) % 3,
    )
    one, two = (METHODS[name](tiny_pengi, NAMES) for _ in range(2))
    settings = dict(epochs=3, batch_size=4, seed=2)
    losses = fit(one, features, labels, **settings)
    assert fit(two, features.expand(3, 6, 64), labels, **settings) == losses and len(losses) == 6
    other = fit(
        METHODS[name](tiny_pengi, NAMES),
        torch.stack([features, features.flip(1), features]),
        labels,
        **settings,
    )
    assert other[:2] == losses[:2] and other[2] != losses[2]


def test_fit_refuses_a_stream_that_does_not_fit(tiny_pengi):
    method, stream = PALM(tiny_pengi, NAMES), torch.randn(3, 6, 64)
    with pytest.raises(ValueError, match="features of 3 epochs need epochs=3"):
        fit(method, stream, torch.arange(6) % 3, epochs=2)
    with pytest.raises(ValueError, match="features of 3 epochs need epochs=3"):
        fit(method, stream, torch.arange(6) % 3, epochs=3, batches=[[0]])
    with pytest.raises(ValueError, match="features must be"):
        evaluate(method, stream, torch.arange(6) % 3)


def test_autocast_needs_single_precision(tiny_pengi):
    """In double precision PyTorch would ignore it, and the row would say that it was on."""
    assert TrainModeAudio(tiny_pengi, autocast=True).autocast
    with pytest.raises(ValueError, match="autocast does nothing for mini.*precision float32"):
        TrainModeAudio(load_pengi("mini", "cpu"), autocast=True)


# Text.


def test_text_dropout_reaches_every_learner_and_ends(tiny_pengi):
    features = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    for name in ("coop", "cocoop", "palm"):
        method = METHODS[name](tiny_pengi, NAMES)
        calm = predict(method, features)
        with text_dropout(tiny_pengi, 0):
            noisy = [predict(method, features) for _ in range(2)]
        with text_dropout(tiny_pengi, 0):
            assert torch.equal(predict(method, features), noisy[0]), name
        assert not torch.allclose(noisy[0], calm) and not torch.allclose(noisy[0], noisy[1]), name
        assert torch.equal(predict(method, features), calm), name
    with pytest.raises(RuntimeError, match="stop"), text_dropout(tiny_pengi, 0):
        raise RuntimeError("stop")
    assert not tiny_pengi.text.projection.training


def test_palm_under_dropout_is_the_equation_on_dropped_text(tiny_pengi):
    """f anew at each step, from the projection's constant input: exact, for only the projection
    is random.
    """
    palm, features = PALM(tiny_pengi, NAMES), torch.randn(4, 64)
    state = tiny_pengi.text.projection
    ids, mask = tiny_pengi.tokenize(NAMES)
    with text_dropout(tiny_pengi, 7):
        logits = palm(features)
    with text_dropout(tiny_pengi, 7), torch.no_grad():
        f = F.normalize(tiny_pengi.text(ids, mask), dim=-1)  # the whole transformer
    weight = palm.lambdas[:, None]
    text = F.normalize((1 - weight) * f + weight * palm.z, dim=-1)
    torch.testing.assert_close(logits, 100 * F.normalize(features, dim=-1) @ text.T)
    assert logits.requires_grad and not state.training


def test_dropout_of_text_at_its_rate(tiny_pengi):
    dropped, hook = (
        [],
        tiny_pengi.text.projection.dropout.register_forward_hook(
            lambda module, given, out: dropped.append((out == 0).double().mean().item())
        ),
    )
    with text_dropout(tiny_pengi, 0):
        tiny_pengi.project_text(torch.randn(500, 32))
    hook.remove()
    assert abs(dropped[0] - 0.5) < 4.5 * 0.5 / (500 * 64) ** 0.5


# Units.


@pytest.fixture
def dataset(tmp_path, clips):
    """Three classes in one split; each clip is to be learned from and tested on: nobody asks for
    the score.
    """
    root = tmp_path / "tiny"
    paths = write_clips(root, 12)
    for part, few in (("train", paths[:6]), ("test", paths[6:])):
        rows = [f"{path.rsplit('/')[-1]},{NAMES[n % 3]}" for n, path in enumerate(few)]
        (root / f"{part}.csv").write_text("\n".join(["path,classname", *rows, ""]))
    return root


GRID = dict(seeds=[0], shots=2, epochs=2, batch_size=4)


@pytest.mark.slow
def test_methods_of_a_seed_share_one_stream(
    dataset, tmp_path, tiny_pengi, cache, monkeypatch, quick, caplog
):
    steps = count_steps(monkeypatch)
    grid = trials.make_grid("all", [dataset], **GRID, protocol="released")
    caplog.set_level("INFO", "palmkit")
    rows = units.run_trials(grid, tiny_pengi, tmp_path / "run", cache=cache)
    assert len(steps) == 2 * 2  # epochs x batches, for three methods
    assert (
        "embedding 24 clips" in caplog.text
    )  # zero-shot's 6 tests; 2 epochs of 6 clips, and 6 tests with bn0 after training
    by_method = {row["method"]: row for row in rows}
    assert {row["stochastic"] for row in rows[1:]} == {"all"} and by_method["zeroshot"][
        "stochastic"
    ] == "crops"
    assert len({tuple(row["losses"]) for row in rows}) == 4
    frozen = units.run_trials(
        trials.make_grid("all", [dataset], **GRID), tiny_pengi, tmp_path / "run", cache=cache
    )
    assert (
        by_method["zeroshot"]["accuracy"] == frozen[0]["accuracy"]
    )  # bn0 is unchanged where nothing was trained
    assert by_method["palm"]["losses"] != frozen[3]["losses"] and frozen[3]["stochastic"] == "none"
    labels = [label for label, _ in results.split_settings(results.load_rows(tmp_path / "run"))]
    assert sorted(labels) == [
        "protocol=frozen, stochastic=none",
        "protocol=released, stochastic=all",
    ]
    (path,) = (tmp_path / "run").glob(
        f"rows/tiny/palm-*-{by_method['palm']['key'][:10]}.safetensors"
    )
    tensors = load_file(path)
    palm, bn0 = (
        PALM(tiny_pengi, NAMES),
        {name: tensors[f"bn0.{name}"] for name in prompts.STATISTICS},
    )
    palm.load_prompt_learner({name: tensors[f"prompt.{name}"] for name in ("ctx", "lambdas")})
    embedded = embed(
        with_bn_statistics(tiny_pengi, bn0),
        [dataset / f"clip{n}.wav" for n in range(6, 12)],
        cache=None,
    )
    assert torch.equal(
        predict(palm, embedded.features), tensors["logits"]
    )  # tested with the statistics after training
    steps.clear()
    units.run_trials(grid, tiny_pengi, tmp_path / "run", cache=cache)
    again = units.run_trials(grid, tiny_pengi, tmp_path / "other", cache=cache)
    assert not steps and [row["losses"] for row in again] == [row["losses"] for row in rows]
    alone = units.run_trials(grid[-1:], tiny_pengi, tmp_path / "alone", cache=None)
    assert alone[0]["losses"] == rows[-1]["losses"] and alone[0]["accuracy"] == rows[-1]["accuracy"]


@pytest.mark.slow
def test_released_without_parts_is_frozen(dataset, tmp_path, tiny_pengi, cache, quick):
    frozen = trials.make_grid("all", [dataset], **GRID, crop="start")
    off = trials.make_grid(
        "all", [dataset], **GRID, crop="start", protocol="released", stochastic=()
    )
    one, two = (
        units.run_trials(grid, tiny_pengi, tmp_path / "run", cache=cache) for grid in (frozen, off)
    )
    for name in ("losses", "loss", "accuracy", "clips", "clip_offsets"):
        assert [row.get(name) for row in one] == [row.get(name) for row in two], name
    assert {row["stochastic"] for row in two} == {"none"} and {
        row["key"] for row in one
    }.isdisjoint(r["key"] for r in two)


@pytest.mark.slow
def test_text_dropout_is_on_in_units_that_have_it(dataset, tmp_path, tiny_pengi, cache, quick):
    """It needs no stream of its own; every learner's losses move, from the first step on."""
    losses = {}
    for parts in ((), ("text_dropout",)):
        grid = trials.make_grid(
            ["coop", "cocoop", "palm"], [dataset], **GRID, protocol="released", stochastic=parts
        )
        losses[parts] = [
            row["losses"]
            for row in units.run_trials(grid, tiny_pengi, tmp_path / "run", cache=cache)
        ]
    assert len(list(cache.glob("*/streams/*"))) == 1
    assert all(calm[0] != noisy[0] for calm, noisy in zip(*losses.values(), strict=True))


@pytest.mark.slow
def test_units_of_the_released_protocol_go_on(
    dataset, tmp_path, tiny_pengi, cache, monkeypatch, quick
):
    grid, real, calls = (
        trials.make_grid("all", [dataset], **GRID, protocol="released"),
        calls_module.run_trial,
        [],
    )

    def die(unit, *arguments, **options):
        calls.append(unit.method)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(unit, *arguments, **options)

    monkeypatch.setattr(calls_module, "run_trial", die)
    with pytest.raises(KeyboardInterrupt):
        units.run_trials(grid, tiny_pengi, tmp_path / "run", cache=cache)
    steps = count_steps(monkeypatch)
    units.run_trials(grid, tiny_pengi, tmp_path / "run", cache=cache)
    assert sorted(calls[:2] + calls[3:]) == ["cocoop", "coop", "palm", "zeroshot"] and not steps
    assert not tiny_pengi.text.projection.training


def test_a_unit_s_parts(dataset):
    unit = trials.Trial(
        "palm", str(dataset), protocol="released", stochastic=["text_dropout", "bn0"]
    )
    assert (
        unit.stochastic == ("bn0", "text_dropout")
        and trials.stochastic_label(unit) == "bn0 + text_dropout"
    )
    assert trials.Trial("palm", str(dataset)).stochastic == ()
    with pytest.raises(ValueError, match="in the frozen one nothing is random"):
        trials.Trial("palm", str(dataset), stochastic=["bn0"])
    with pytest.raises(ValueError, match="no random part 'bn1'"):
        trials.Trial("palm", str(dataset), protocol="released", stochastic=["bn1"])


@pytest.mark.slow
def test_rows_of_other_rates_are_separate(dataset, tmp_path, tiny_pengi, cache, quick):
    other = copy.copy(tiny_pengi)
    other.config = tiny_pengi.config | {"projection_dropout": 0.1}
    for protocol in ("released", "frozen"):
        grid = trials.make_grid(["palm"], [dataset], **GRID, protocol=protocol)
        for pengi in (tiny_pengi, other):
            units.run_trials(grid, pengi, tmp_path / "run", cache=cache)
    groups = dict(results.split_settings(results.load_rows(tmp_path / "run")))
    assert sorted(len(rows) for rows in groups.values()) == [1] * 4
    assert sum("'dropout': 0.1" in label for label in groups) == 1


@pytest.mark.slow
def test_command_line(dataset, compact, tmp_path, monkeypatch, capsys, quick):
    monkeypatch.setenv("PALMKIT_RUNS", str(tmp_path / "runs"))
    grid = [
        "--checkpoint",
        str(compact.checkpoint),
        "--dataset",
        str(dataset),
        "--shots",
        "1",
        "--epochs",
        "1",
    ]
    released = [*grid, "--method", "palm", "--seed", "0", "--name", "c", "--protocol", "released"]
    assert main(["run", *released, "--stochastic", "bn0", "crops"]) == 0
    assert main(["run", *released, "--stochastic", "none"]) == 0
    rows = [
        json.loads(path.read_text()) for path in (tmp_path / "runs" / "c").glob("rows/*/*.json")
    ]
    assert sorted(row["stochastic"] for row in rows) == ["crops + bn0", "none"]
    assert {row["protocol"] for row in rows} == {"released"}
    assert main(["run", *released, "--stochastic", "none", "--autocast"]) == 0
    rows = results.load_rows("c", details=True)
    both = rows[rows["stochastic"] == "none"].set_index("autocast")
    assert both.loc[True, "losses"] != both.loc[False, "losses"]  # it was on
    assert len(results.split_settings(rows)) == 3  # and its rows are not averaged with the others
    assert (
        main(["run", *grid, "--name", "c", "--autocast"]) == 1
        and "released protocol" in capsys.readouterr().err
    )
    capsys.readouterr()
    assert main(["table", "c"]) == 0
    assert "stochastic=crops + bn0" in capsys.readouterr().out
    assert (
        main(["run", *released, "--stochastic", "bn1"]) == 1
        and "no random part 'bn1'" in capsys.readouterr().err
    )
    assert main(["run", *grid, "--stochastic", "bn0"]) == 1


@pytest.mark.slow
def test_several_processes_hear_the_same(dataset, tmp_path, tiny_pengi, monkeypatch):
    grid = trials.make_grid("all", [dataset], **GRID | {"seeds": [0, 1]}, protocol="released")
    one = units.run_trials(grid, tiny_pengi, tmp_path / "one", cache=tmp_path / "a")
    monkeypatch.setenv("PALMKIT_JOBS", "2")
    two = units.run_trials(grid, tiny_pengi, tmp_path / "two", cache=tmp_path / "b")
    three = units.run_trials(grid, tiny_pengi, tmp_path / "three", cache=None)
    for found in (two, three):
        assert [row["losses"] for row in found] == [row["losses"] for row in one]


# Prompts in the published layout.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coop", "cocoop", "palm"])
def test_a_published_prompt_loads_and_evaluates(full, tmp_path, name):
    """A file as the published code writes it, made of the reference's tensors; and what we write
    has its layout.
    """
    pengi, drift, table = (
        load_pengi(full.checkpoint, device="cpu"),
        full.tables["bn0_train"],
        full.tables[f"train_{name}"],
    )
    final = {
        key[6:]: value
        for key, value in table.items()
        if key.startswith("final.") and not key.endswith("_f64")
    }
    buffers = {key: table[f"init.{key}"] for key in ("sos", "classes_pad") if name != "palm"}
    bn0 = {key: drift[f"{key}_3"] for key in prompts.STATISTICS}
    torch.save(
        {"prompt_learner": final | buffers, "pengi_bn0_buffer": bn0}, tmp_path / "theirs.pth"
    )
    method = METHODS[name](pengi, full.facts["class_names"], seed=5)
    restored = prompts.load_prompt(tmp_path / "theirs.pth", method)
    within(
        1e-3,
        relative(predict(method, table["features"]), table["eval_logits"]),
        f"{name}, saved prompt",
        full.name,
    )
    expected = F.normalize(drift["embedding_after_drift"], dim=-1)
    within(
        EXACT,
        relative(restored.encode_audio(full.waves()), expected),
        "saved prompt, bn0 after training",
        full.name,
    )

    prompts.save_prompt(tmp_path / "ours.pth", method, bn0)
    ours = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert ours.keys() == {"prompt_learner", "pengi_bn0_buffer"}
    for state, theirs in (
        (ours["prompt_learner"], final | buffers),
        (ours["pengi_bn0_buffer"], bn0),
    ):
        assert state.keys() == theirs.keys() and all(
            torch.equal(state[key], theirs[key]) for key in theirs
        )


@pytest.mark.slow
def test_our_prompt_comes_back(tiny_pengi, clips, tmp_path):
    stream = embed_epochs(tiny_pengi, clips)
    method = PALM(tiny_pengi, NAMES, seed=1)
    with text_dropout(tiny_pengi, 0):
        fit(method, stream.features, stream.labels, epochs=2, batch_size=4)
    prompts.save_prompt(tmp_path / "palm.pth", method, stream.bn0)
    fresh = PALM(tiny_pengi, NAMES, seed=2)
    restored = prompts.load_prompt(tmp_path / "palm.pth", fresh)
    embedded = embed(with_bn_statistics(tiny_pengi, stream.bn0), clips, cache=None).features
    assert torch.equal(embed(restored, clips, cache=None).features, embedded)
    assert torch.equal(predict(fresh, embedded), predict(method, embedded))
    prompts.save_prompt(tmp_path / "frozen.pth", method)
    assert prompts.load_prompt(tmp_path / "frozen.pth", fresh).digest() == tiny_pengi.digest()


class Evil:
    def __reduce__(self):
        return (print, ("code in the file was run",))


def test_files_that_are_no_prompt(tiny_pengi, tmp_path, capsys):
    method, path = PALM(tiny_pengi, NAMES), tmp_path / "prompt.pth"
    before = method.prompt_learner_state()
    prompts.save_prompt(path, method)
    good = torch.load(path, weights_only=True)
    short = {"running_mean": torch.zeros(3), "running_var": torch.ones(3)}
    negative = good["pengi_bn0_buffer"] | {"running_var": torch.full((64,), -1.0)}
    for bad, message in (
        ({"model": {}}, "holds no state 'prompt_learner'"),
        ({"prompt_learner": good["prompt_learner"]}, "running_mean is missing"),
        (good | {"pengi_bn0_buffer": short}, r"not of shape \[64\]"),
        (good | {"pengi_bn0_buffer": negative}, "negative variances"),
        (
            good | {"prompt_learner": {"ctx": torch.zeros(2, 64), "lambdas": torch.zeros(2)}},
            r"ctx is \[2, 64\]",
        ),
        (good | {"prompt_learner": Evil()}, "holds more than tensors"),
    ):
        torch.save(bad, path)
        with pytest.raises(prompts.PromptError, match=message):
            prompts.load_prompt(path, method)
    path.write_bytes(b"nothing")
    with pytest.raises(prompts.PromptError, match="no file of PyTorch"):
        prompts.load_prompt(path, method)
    with pytest.raises(FileNotFoundError):
        prompts.load_prompt(tmp_path / "nowhere.pth", method)
    after = method.prompt_learner_state()
    assert (
        all(torch.equal(before[key], after[key]) for key in before) and not capsys.readouterr().out
    )
