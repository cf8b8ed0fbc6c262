"""Classes and clips that are lost, against counts by hand and scipy's tests."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from palmkit.results.lost_classes import (
    class_differences,
    clip_differences,
    count_lost,
    margin_groups,
)
from palmkit.results.plots import plot_class_differences
from palmkit.results.statistics import DIFFERENCE, holm, seed_clip_interval


def make_frame(right, method, dataset="A", label=0, fold=1):
    """right: [seeds, clips]."""
    right = np.asarray(right, bool)
    seed, clip = np.indices(right.shape).reshape(2, -1)
    # Clips are numbered over the whole fold.
    frame = pd.DataFrame({"seed": seed, "clip": 100 * label + clip, "right": right.ravel()})
    frame["margin"] = clip / 10 + seed / 1000
    return frame.assign(method=method, dataset=dataset, label=label, fold=fold)


@pytest.fixture
def frame():
    """Class 0: three of eight clips won with some seeds, none lost. Class 1: six lost of eight."""
    palm = [[1, 1, 1, 0, 0, 0, 1, 1], [1, 1, 0, 0, 0, 0, 1, 1]]
    before = [[0, 0, 0, 0, 0, 0, 1, 1]]
    return pd.concat([
        make_frame(palm, "palm"), make_frame(before, "zeroshot"), make_frame(before * 2, "coop"),
        make_frame(np.zeros((2, 8)), "palm", label=1),
        make_frame([[1] * 6 + [0] * 2], "zeroshot", label=1),
        make_frame(np.zeros((2, 8)), "coop", label=1),
    ])  # fmt: skip


def test_a_reference_of_one_seed_is_compared_with_each_seed(frame):
    table = clip_differences(frame, "palm", "zeroshot")
    assert table.shape == (16, 2)
    assert table.loc["A", 0].to_numpy().T.tolist() == [
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
    ]


def test_seeds_are_compared_in_pairs(frame):
    swapped = frame.assign(seed=frame["seed"].where(frame["method"] != "palm", 1 - frame["seed"]))
    changed = clip_differences(swapped, "palm", "coop").loc["A", 0].to_numpy()
    kept = clip_differences(frame, "palm", "coop").loc["A", 0].to_numpy()
    assert np.array_equal(changed, kept[:, ::-1]) and not np.array_equal(changed, kept)


def test_differences_of_classes(frame):
    table = class_differences(frame)
    first, second = table.loc[("A", 0)], table.loc[("A", 1)]
    assert first["difference"] == pytest.approx(5 / 16) and second["difference"] == pytest.approx(
        -6 / 8
    )
    assert table[["won", "lost", "clips"]].to_numpy().tolist() == [[3, 0, 8], [0, 6, 8]]
    expected = [stats.binomtest(3, 3).pvalue, stats.binomtest(6, 6).pvalue]
    assert expected == pytest.approx([0.25, 0.03125])
    assert table["p"].to_numpy() == pytest.approx(expected)
    assert table["p_holm"].to_numpy() == pytest.approx(holm(expected))
    scores = clip_differences(frame, "palm", "zeroshot").loc["A", 0].to_numpy().T
    assert tuple(first[["difference", "low", "high"]]) == pytest.approx(
        seed_clip_interval(scores, bounds=DIFFERENCE)
    )


def test_equal_methods_have_no_difference(frame):
    same = pd.concat(
        [frame[frame["method"] == "palm"], frame[frame["method"] == "palm"].assign(method="copy")]
    )
    table = class_differences(same, "copy", "palm")
    assert (table["difference"] == 0).all() and (table["p_holm"] == 1).all()


def test_groups_by_margin():
    parts = [
        make_frame(np.ones((2, 10)), name, dataset=dataset)
        for name in ("zeroshot", "palm")
        for dataset in "AB"
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame.loc[frame["method"] == "palm", "margin"] = 0  # another method's margins do not count
    groups = margin_groups(frame)
    assert np.array_equal(groups, frame["clip"] // 2 + 1)
    few = margin_groups(frame[frame["clip"] < 7], groups=3)
    assert np.unique(few, return_counts=True)[1].tolist() == [3 * 8, 2 * 8, 2 * 8]


def test_counts_of_lost_classes(frame):
    changes = class_differences(frame)
    table = count_lost(changes, frame)
    line = table.loc["A"]
    assert line[["below", "lost", "won", "classes", "worst"]].tolist() == [1, 0, 0, 2, 1]
    assert line[["difference", "lowest", "highest"]].tolist() == [-0.75, -0.75, -0.75]
    clear = count_lost(changes.assign(p_holm=0.01, difference=changes["difference"].abs()), frame)
    assert clear.loc["A", ["below", "lost", "won", "worst"]].tolist() == [0, 0, 2, 0]
    assert clear.loc["A", ["lowest", "highest"]].tolist() == [0.25, 0.375]  # of its seeds


def test_a_figure_of_differences(frame):
    changes = class_differences(frame)
    ax = plot_class_differences(changes.assign(p_holm=[0.01, 0.5]), ["bell", "dog"])
    filled, open_ = (bars.lines[0] for bars in ax.containers)
    assert filled.get_ydata().tolist() == [0.3125] and open_.get_ydata().tolist() == [-0.75]
    assert open_.get_markerfacecolor() == "white" != filled.get_markerfacecolor()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["bell", "dog"]
    plt.close(ax.figure)
