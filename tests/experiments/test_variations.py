"""What a study changes: options of PALM, of the task, corrupted clips; and its rows."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import torch.nn.functional as F

from palmkit import METHODS, PALM, ZeroShot, fit, predict
from palmkit.corruptions import Corruption
from palmkit.datasets.resolve import load_dataset
from palmkit.embeddings import embed
from palmkit.experiments import rows, trials, variations
from palmkit.experiments import run as units
from palmkit.experiments.rows import load_method
from palmkit.methods import PALMDagger
from palmkit.results.per_class import class_frame, per_clip_accuracy, right_by_seed
from palmkit.results.statistics import seed_interval
from palmkit.results.tables import intervals, setting, summarise

NAMES = ["vacuum cleaner", "dog", "rain", "glockenspiel"]
LABELS = torch.arange(24) % 4
FEATURES = F.normalize(torch.randn(24, 64, generator=torch.Generator().manual_seed(5)), dim=-1)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def dataset(tmp_path):
    """Three classes of three clips to draw from and two to test on, a tenth of a second each."""
    root, rng = tmp_path / "tiny", np.random.default_rng(0)
    root.mkdir()
    for part, number in (("train", 3), ("test", 2)):
        names = [
            (f"{name}{part}{n}.wav", name)
            for name in ("bell", "dog", "rain")
            for n in range(number)
        ]
        for path, _ in names:
            soundfile.write(root / path, rng.standard_normal(4410) * 0.1, 44100)
        pd.DataFrame(names, columns=["path", "classname"]).to_csv(root / f"{part}.csv", index=False)
    return root


@pytest.fixture
def run_row(dataset, tmp_path, tiny_pengi):
    def run_row(method="palm", run=tmp_path / "run", seed=0, **settings):
        chosen = {"shots": 3, "epochs": 2, **settings}
        (row,) = units.run_trials(
            trials.make_grid([method], [dataset], seeds=[seed], **chosen), tiny_pengi, run
        )
        return row

    return run_row


# PALM.


def test_the_published_start_is_the_default(tiny_pengi):
    """z, then l, from torch's generator: noise is the same whatever the options are."""
    torch.manual_seed(3)
    z, lambdas = 0.02 * torch.randn(4, 64), torch.rand(4)
    palm = PALM(tiny_pengi, NAMES, seed=3)
    torch.testing.assert_close(palm.z.data, z, rtol=0, atol=1e-7)
    assert torch.equal(palm.lambda_logits, lambdas)
    for options in (dict(init="audio"), dict(fixed_lambda=0.5), dict(shared_lambda=True)):
        assert torch.equal(PALM(tiny_pengi, NAMES, seed=3, **options).z, palm.z)


def test_z_from_the_text(tiny_pengi):
    palm = PALM(tiny_pengi, NAMES, init="text")
    assert torch.equal(palm.z, palm.f) and palm.z.data_ptr() != palm.f.data_ptr()
    torch.testing.assert_close(
        palm(FEATURES), PALMDagger(tiny_pengi, NAMES)(FEATURES), rtol=1e-4, atol=1e-3
    )


def test_z_from_the_audio_of_the_support_set(tiny_pengi):
    palm = PALM(tiny_pengi, NAMES, init="audio")
    noise = palm.z.detach().clone()
    few = LABELS < 3  # nothing of class 3: it keeps its noise
    fit(palm, 2 * FEATURES[few], LABELS[few], epochs=0)
    for label in range(3):
        mean = FEATURES[LABELS.eq(label)].mean(0)
        torch.testing.assert_close(palm.z[label].detach(), mean / mean.norm(), rtol=1e-4, atol=1e-5)
    assert torch.equal(palm.z[3], noise[3])
    fit(palm, FEATURES, LABELS, epochs=1)
    learned = palm.z.detach().clone()
    fit(palm, FEATURES, LABELS, epochs=0)  # a second fit goes on, it does not begin anew
    assert torch.equal(palm.z, learned) and not torch.equal(learned[3], noise[3])


@pytest.mark.parametrize("fixed", [0, 0.25, 1])
def test_lambda_fixed(fixed, tiny_pengi):
    palm = PALM(tiny_pengi, NAMES, fixed_lambda=fixed)
    assert sum(parameter.numel() for parameter in palm.parameters()) == 4 * 64
    losses = fit(palm, FEATURES, LABELS, epochs=4)
    assert palm.lambdas.tolist() == [fixed] * 4 and set(palm.prompt_learner_state()) == {"ctx"}
    text = F.normalize((1 - fixed) * palm.f + fixed * palm.z, dim=-1)
    torch.testing.assert_close(palm(FEATURES), 100 * FEATURES @ text.T, rtol=1e-4, atol=1e-3)
    assert fixed == 0 or losses[-1] < losses[0]
    if fixed == 0:  # nothing is left to learn
        zero_shot = ZeroShot(tiny_pengi, NAMES, prompt="{}")
        torch.testing.assert_close(palm(FEATURES), zero_shot(FEATURES), rtol=1e-4, atol=1e-3)


def test_lambda_shared(tiny_pengi):
    palm = PALM(tiny_pengi, NAMES, shared_lambda=True)
    before = palm.lambdas.tolist()
    fit(palm, FEATURES, LABELS, epochs=2)
    assert len(set(palm.lambdas.tolist())) == len(set(before)) == 1 and len(before) == 4
    assert palm.lambdas.tolist() != before and palm.lambda_logits.shape == (1,)
    other = PALM(tiny_pengi, NAMES, shared_lambda=True, seed=1)
    other.load_prompt_learner(palm.prompt_learner_state())
    assert torch.equal(other(FEATURES), palm(FEATURES))


@pytest.mark.parametrize(
    "options",
    [
        *(dict(init="noise"), dict(fixed_lambda=1.5), dict(fixed_lambda=-0.1)),
        *(dict(fixed_lambda="x"), dict(fixed_lambda=True), dict(shared_lambda=[1])),
    ],
)
def test_options_that_are_none(options, tiny_pengi):
    with pytest.raises(ValueError, match=r"(init|_lambda)=.*: use "):
        PALM(tiny_pengi, NAMES, **options)


# The task.


@pytest.mark.slow
def test_some_classes_only(run_row, dataset):
    row = run_row(options={"classes": ["rain", "bell"]})
    assert row["class_names"] == ["bell", "rain"] and row["n_test"] == 4 and row["n_train"] == 6
    assert not any("dog" in clip for clip in row["clips"])
    with pytest.raises(ValueError, match="tiny has no class 'cat'; it has bell, dog, rain"):
        run_row(options={"classes": ["rain", "cat"]})


def test_other_names_same_clips(run_row, tiny_pengi):
    """Only what the text encoder reads is another; order, labels and draw stay."""
    plain, row = run_row(shots=2), run_row(shots=2, options={"names": {"bell": "glockenspiel"}})
    assert row["class_names"] == ["glockenspiel", "dog", "rain"] and row["clips"] == plain["clips"]
    assert row["key"] != plain["key"] and row["losses"] != plain["losses"]
    zero_shot = run_row("zeroshot", options={"names": {"bell": "glockenspiel"}})
    assert zero_shot["loss"] != run_row("zeroshot")["loss"]


@pytest.mark.slow
def test_a_rare_class(run_row):
    one, two = (run_row(options={"rare": {"dog": n}})["clips"] for n in (1, 2))
    assert [sum("dog" in clip for clip in clips) for clips in (one, two)] == [1, 2]
    assert len(one) == 7 and set(one) < set(two) < set(run_row()["clips"])
    with pytest.raises(ValueError, match="no clip of class 'cat'"):
        run_row(options={"rare": {"cat": 1}})


def test_resampling_repeats_the_clips_of_a_rare_class(run_row):
    rare = {"rare": {"dog": 2}}
    few, many = (run_row(options=rare | more)["clips"] for more in ({}, {"resample": True}))
    assert len(many) == 9 and set(many) == set(few)
    counts = sorted(many.count(clip) for clip in set(many) if "dog" in clip)
    assert counts == [1, 2] and all(many.count(clip) == 1 for clip in few if "dog" not in clip)
    plain, same = run_row(), run_row(options={"resample": True})
    assert same["clips"] == plain["clips"] and same["losses"] == plain["losses"]


def test_principal_axes_are_scikit_learn_s():
    from sklearn.decomposition import PCA

    axes = variations.principal_axes(FEATURES, 5)
    expected = torch.tensor(PCA(5, svd_solver="full").fit(FEATURES.numpy()).components_)
    torch.testing.assert_close((axes.T @ expected.T).abs(), torch.eye(5), rtol=0, atol=1e-4)
    assert (axes.abs().max(0).values == axes.max(0).values).all()
    for width in (0, 24):
        with pytest.raises(ValueError, match="1 to 23 axes"):
            variations.principal_axes(FEATURES, width)


@pytest.mark.slow
def test_narrow_features(run_row):
    row = run_row(options={"pca_dim": 4})
    assert row["trainable"] == 3 * (4 + 1) and row["loss"] != run_row()["loss"]
    narrow, full = run_row("coop", options={"pca_dim": 4}), run_row("coop")
    assert narrow["trainable"] == full["trainable"] and narrow["loss"] != full["loss"]
    with pytest.raises(ValueError, match="uses none"):
        run_row("zeroshot", options={"pca_dim": 4})


@pytest.mark.parametrize("key", ["zeroshot", "coop", "cocoop", "palm"])
def test_narrowed_methods_compare_projected_embeddings(tiny_pengi, key):
    axes = variations.principal_axes(FEATURES, 20)
    method = METHODS[key](variations.ProjectedModel(tiny_pengi, axes), NAMES)
    audio = F.normalize(FEATURES[:5] @ axes, dim=-1)
    with torch.no_grad():
        logits, text = method(audio), method.text if key == "zeroshot" else None
        if key in ("coop", "cocoop"):
            context = method.context + (method.meta_net(audio)[:, None] if key == "cocoop" else 0)
            contexts = context.expand(5, -1, -1)
            prefix = tiny_pengi.text.prefix(
                torch.cat([method.start.expand(5, -1, -1), contexts], 1)
            )
            text = (
                tiny_pengi.text.encode_suffix(
                    method.names.expand(5, -1, -1, -1), method.lengths - 1, prefix
                )
                @ axes
            )
        elif key == "palm":
            weight = method.lambdas[:, None]
            text = (1 - weight) * F.normalize(
                tiny_pengi.encode_text(NAMES) @ axes, dim=-1
            ) + weight * method.z
        expected = 100 * torch.einsum(
            "bd,bcd->bc", audio, F.normalize(text, dim=-1).expand(5, -1, -1)
        )
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-3)


def test_cocoop_needs_sixteen_features(tiny_pengi):
    narrow = variations.ProjectedModel(tiny_pengi, variations.principal_axes(FEATURES, 8))
    with pytest.raises(ValueError, match="dim=8 is too few"):
        METHODS["cocoop"](narrow, NAMES)


def test_all_axes_change_no_cosine(tiny_pengi):
    """24 clips cannot span 64 dimensions; 300 can, and then projecting is turning."""
    many = F.normalize(torch.randn(300, 64, generator=torch.Generator().manual_seed(1)), dim=-1)
    axes = variations.principal_axes(many, 64)
    narrowed = PALMDagger(variations.ProjectedModel(tiny_pengi, axes), NAMES)
    whole = PALMDagger(tiny_pengi, NAMES)
    torch.testing.assert_close(narrowed(FEATURES @ axes), whole(FEATURES), rtol=1e-4, atol=1e-3)


# Rows.


@pytest.mark.slow
def test_every_option_has_its_own_key(run_row, tmp_path):
    changed = [
        {}, {"init": "text"}, {"init": "audio"}, {"fixed_lambda": 0.5}, {"shared_lambda": True},
        {"pca_dim": 4},
        {"classes": ["bell", "dog"]}, {"names": {"bell": "glockenspiel"}}, {"rare": {"dog": 1}},
        {"corruption": ["level", -20]}, {"rare": {"dog": 1}, "resample": True},
    ]  # fmt: skip
    rows = [run_row(options=options) for options in changed]
    assert (
        len({row["key"] for row in rows})
        == len(changed)
        == len(list(tmp_path.glob("run/rows/tiny/*.json")))
    )
    assert [row["options"] for row in rows] == changed


def test_training_that_diverges_is_a_row(run_row, dataset, tiny_pengi, tmp_path):
    """The grid goes on; the row says so, and no table takes it for a result."""
    bad, good = run_row(lr=1e38, epochs=5), run_row()
    assert "not finite from step" in bad["diverged"] and good["diverged"] == ""
    assert (
        not np.isfinite(bad["losses"]).all()
        and np.isnan([bad["accuracy"], bad["f1"], bad["loss"]]).all()
    )
    again = run_row(lr=1e38, epochs=5)
    assert again["written"] == bad["written"] and json.dumps(again) == json.dumps(bad)
    both = pd.DataFrame([bad, {**good, "lr": bad["lr"], "epochs": bad["epochs"], "seed": 1}])
    with pytest.warns(UserWarning, match="seed 0: 0 of 1 folds; left out"):
        assert summarise(both)["mean"].tolist() == [good["accuracy"]]


def test_a_sweep(dataset):
    grid = dict(methods=["palm"], datasets=[dataset], seeds=[0, 1])
    shots = trials.sweep("shots", [1, None], **grid, options={"init": "text"})
    assert [(unit.shots, unit.seed) for unit in shots] == [(1, 0), (1, 1), (16, 0), (16, 1)]
    assert all(unit.options == {"init": "text"} for unit in shots)
    widths = trials.sweep("pca_dim", [2, None], **grid, lr=0.5)
    assert [unit.options for unit in widths] == [{"pca_dim": 2}] * 2 + [{}] * 2 and widths[
        0
    ].lr == 0.5
    assert widths[2:] == trials.make_grid(**grid, lr=0.5)
    rows = pd.DataFrame([vars(unit) for unit in widths])
    assert (
        setting(rows, "pca_dim", "all").tolist() == [2, 2, "all", "all"]
        and setting(rows, "lr").tolist() == [0.5] * 4
    )


def test_intervals_are_over_seeds_of_means_over_folds():
    cells = [
        (1, 0, 0, 0.2),
        (1, 0, 1, 0.4),
        (1, 1, 0, 0.6),
        (1, 1, 1, 0.8),
        (9, 0, 0, 0.5),
        (9, 0, 1, 0.1),
    ]
    rows = pd.DataFrame(cells, columns=["shots", "seed", "fold", "accuracy"])
    table = intervals(rows, ["shots"])
    expected = seed_interval([0.3, 0.7], bounds=(0, 1))
    assert tuple(table.loc[1, ["mean", "low", "high"]]) == pytest.approx(expected)
    assert table.loc[9, "mean"] == pytest.approx(0.3) and np.isnan(table.loc[9, "low"])
    assert table["seeds"].tolist() == [2, 1] and table["diverged"].tolist() == [0, 0]
    failed = intervals(rows.assign(diverged=["at step 3", "", "", "", "", ""]), ["shots"]).loc[1]
    assert failed["mean"] == pytest.approx(0.7) and (failed["seeds"], failed["diverged"]) == (1, 1)
    assert intervals(rows, ["shots", "fold"]).loc[(1, 1), "mean"] == pytest.approx(0.6)


@pytest.mark.slow
@pytest.mark.parametrize("method, options", [
    ("palm", {"fixed_lambda": 0.3}), ("palm", {"shared_lambda": True, "classes": ["bell", "dog"]}),
    ("coop", {"context_length": 4}),
    ("palm", {"corruption": ["noise", 0], "names": {"dog": "wolf"}}), ("zeroshot", {}),
])  # fmt: skip
def test_tensors_and_method_of_a_row(method, options, run_row, dataset, tiny_pengi, tmp_path):
    row = run_row(method, options=options)
    tensors = rows.load_tensors(pd.DataFrame([row]).iloc[0], tmp_path / "run")
    right = (tensors["logits"].argmax(1) == tensors["labels"]).double().mean().item()
    assert right == row["accuracy"] and tensors["logits"].shape == (
        row["n_test"],
        len(row["class_names"]),
    )
    again = load_method(row, tmp_path / "run", tiny_pengi)
    varied = variations.modify_task(load_dataset(dataset), **options)
    damage = options.get("corruption")
    transform = Corruption(*damage, 44_100) if damage else None
    test = embed(tiny_pengi, varied.test, transform=transform)
    assert torch.equal(predict(again, test.features), tensors["logits"])
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_classes_and_clips_of_rows(run_row, tiny_pengi, tmp_path):
    rows = pd.DataFrame([run_row(), run_row("zeroshot")])
    frame, (palm, zero_shot) = (
        class_frame(rows, tmp_path / "run", tiny_pengi),
        rows.to_dict("records"),
    )
    assert (
        frame["class_name"].tolist() == palm["class_names"]
        and frame["learned"].tolist() == palm["lambdas"]
    )
    assert (
        frame["recall"].mean() == pytest.approx(palm["recall"])
        and frame["zeroshot"].mean() == zero_shot["recall"]
    )
    method = load_method(palm, tmp_path / "run", tiny_pengi)
    f, z, weight = method.f[1], method.z[1], method.lambdas[1]
    angle = torch.arccos(F.cosine_similarity(f, (1 - weight) * f + weight * z, dim=0)).item()
    assert frame["angle"][1] == pytest.approx(np.degrees(angle), rel=1e-3)
    assert frame["z_norm"][1] == pytest.approx(z.norm().item(), rel=1e-5)
    both = pd.DataFrame([run_row(shots=2), {**run_row(shots=2), "seed": 1}])
    assert per_clip_accuracy(rows[:1], tmp_path / "run").mean() == palm["accuracy"]
    with pytest.raises(ValueError, match="not of one dataset, method and setting"):
        per_clip_accuracy(rows, tmp_path / "run")
    with pytest.raises(FileNotFoundError):
        per_clip_accuracy(both, tmp_path / "run")  # a seed whose row is not there


def test_clips_of_each_seed(run_row, tiny_pengi, tmp_path):
    rows = pd.DataFrame([run_row(seed=1), run_row(seed=0)])
    right = right_by_seed(rows, tmp_path / "run")
    expected = rows.sort_values("seed")["accuracy"].tolist()
    assert right.shape == (2, rows["n_test"][0]) and right.mean(1).tolist() == expected
    assert right.mean(0).tolist() == per_clip_accuracy(rows, tmp_path / "run").tolist()
    with pytest.raises(ValueError, match="not of one dataset, method and setting"):
        right_by_seed(pd.concat([rows, rows[:1]]), tmp_path / "run")
    with pytest.raises(ValueError, match="seeds have different folds"):
        right_by_seed(rows.assign(fold=[1, 2]), tmp_path / "run")


def test_tensors_of_no_row(run_row, tiny_pengi, tmp_path):
    row = run_row()
    with pytest.raises(
        FileNotFoundError, match="has no row palm-split-shots3-seed0-.*run_trials first"
    ):
        rows.load_tensors(row, tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="axes are not kept"):
        load_method(run_row(options={"pca_dim": 4}), tmp_path / "run", tiny_pengi)


# Damage.


@pytest.mark.slow
def test_only_what_is_tested_on_is_damaged(run_row):
    plain, damaged = run_row(), run_row(options={"corruption": ["noise", -10]})
    assert damaged["losses"] == plain["losses"] and damaged["loss"] != plain["loss"]


@pytest.mark.parametrize("length", [-1, "x", 2.5, True])
def test_a_context_length_that_is_none(length, tiny_pengi):
    with pytest.raises(ValueError, match="context_length=.*: use a whole number"):
        METHODS["coop"](tiny_pengi, NAMES, context_length=length)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classes": []}, "two classes or more"),
        ({"classes": ["dog"]}, "two classes or more"),
        ({"names": {"dog": ""}}, "not empty"),
        ({"names": {"dog": 3}}, "not empty"),
        ({"rare": {"dog": True}}, "use 1 or more"),
        ({"resample": 1}, "use True or False"),
    ],
)
def test_options_of_the_task_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        trials.Trial("palm", "Rain", options=options)
