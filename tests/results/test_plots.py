"""Figures show what they are given: places, colours, labels."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from palmkit.results import plots
from palmkit.results.method_style import NEUTRAL, method_color, method_label


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_time_axes_follow_the_sample_rate(rate):
    ax = plots.plot_waveform(np.zeros(2 * rate), sample_rate=rate)
    assert ax.get_xlim() == pytest.approx((0, 2)) and ax.lines[0].get_xdata()[-1] < 2
    ax = plots.plot_log_mel(np.zeros((100, 64)), hop=rate // 100, sample_rate=rate)
    assert ax.images[0].get_extent() == pytest.approx([0, 1, 0, 64])


def test_frequencies_make_an_axis_in_khz():
    frequencies = np.geomspace(900, 5000, 64)
    mel = np.zeros((10, 64))
    ax = plots.plot_log_mel(mel, hop=1, sample_rate=1, frequencies=frequencies, colorbar=False)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "2", "4"]
    place = np.interp(2000, frequencies, np.arange(64) + 0.5)
    assert ax.get_yticks()[1] == pytest.approx(place)


def test_accuracies_are_bars_in_the_methods_colours():
    table = pd.DataFrame({
        "dataset": ["A", "A", "B", "B"], "method": ["coop", "palm"] * 2,
        "mean": [0.1, 0.2, 0.3, 0.4], "std": [np.nan, 0.05] * 2, "seeds": [1, 3] * 2,
    })  # fmt: skip
    ax = plots.plot_accuracy(table, chance={"A": 0.25})
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == [0.1, 0.3, 0.2, 0.4]
    colors = [to_hex(bar.get_facecolor()) for bar in ax.patches]
    assert colors == [method_color("coop")] * 2 + [method_color("palm")] * 2
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["chance", "COOP (n=1)", "PALM (n=3)"]


def error_ends(ax, container=0):
    """The ends of a container's error bars, [(low, high)]."""
    (segments,) = ax.containers[container].lines[2]
    return [tuple(segment[:, 1]) for segment in segments.get_segments() if len(segment)]


def test_error_bars_end_at_0_and_1_and_equal_seeds_have_none():
    table = pd.DataFrame({
        "dataset": ["A", "B", "C"], "method": ["palm"] * 3, "mean": [0.99, 0.02, 0.5],
        "std": [0.05, 0.06, 0.0], "seeds": [3] * 3,
    })  # fmt: skip
    ends = [end for end in error_ends(plots.plot_accuracy(table)) if not np.isnan(end).any()]
    assert ends == [pytest.approx((0.94, 1)), pytest.approx((0, 0.08))]


def test_no_legend_lies_over_data():
    rows = pd.DataFrame({"method": ["palm"], "epochs": [2], "losses": [[4.0, 2.0, 1.0, 0.0]]})
    lambdas = pd.DataFrame({"initial": [0.5] * 4, "learned": [0.1, 0.5, 0.9, 0.95]})
    for ax in (plots.plot_losses(rows), plots.plot_lambdas(lambdas)):
        ax.figure.canvas.draw()
        legend, data = (part.get_window_extent() for part in (ax.get_legend(), ax.patch))
        assert legend.x0 >= data.x1


def test_losses_are_means_of_epochs_and_their_median():
    rows = pd.DataFrame({
        "method": ["palm"] * 3 + ["zeroshot"], "epochs": [2, 2, 2, 0],
        "losses": [[4.0, 2.0, 1.0, 0.0], [5.0, 5.0, 1.0, 1.0], [9.0, 9.0, 9.0, 9.0], []],
    })  # fmt: skip
    ax = plots.plot_losses(rows)
    curves = [line.get_ydata().tolist() for line in ax.lines]
    assert curves == [[3, 0.5], [5, 1], [9, 9], [5, 1]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["PALM (median of 3)"]


def test_a_study_has_its_intervals_and_zero_shot_as_a_line():
    index = pd.Index([1, 4], name="shots")
    columns = {"mean": [0.5, 0.6], "low": [0.4, np.nan], "high": [0.7, np.nan], "seeds": [3, 1]}
    ax = plots.plot_study(pd.DataFrame(columns, index), reference=0.3, xscale="log", xlabel="shots")
    (segments,) = ax.containers[0].lines[2]
    low, high = segments.get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((0.4, 0.7))
    _, caps, _ = ax.containers[0].lines
    missing = [np.isnan(np.array(cap.get_ydata(), float)).tolist() for cap in caps]
    assert missing == [[False, True]] * 2
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "4"]
    (line,) = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert set(line.get_ydata()) == {0.3} and line.get_label() == "Zero-shot"
    assert to_hex(line.get_color()) == method_color("zeroshot")


def test_differences_have_their_intervals_beside_the_margin():
    index = pd.MultiIndex.from_product([["bn0", "all"], ["coop", "palm"]])
    columns = {"mean": [0.1, -0.2, 0.0, 0.1], "low": [0.0, -0.4, np.nan, 0.05]}
    table = pd.DataFrame(columns | {"high": [0.2, 0.0, np.nan, 0.15]}, index)
    ax = plots.plot_differences(table, margin=0.05, xlabel="difference")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["bn0", "all"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first line is on top
    coop, palm = ax.containers
    assert coop.lines[0].get_xdata().tolist() == [0.1, 0.0]
    assert (coop.lines[0].get_ydata() < palm.lines[0].get_ydata()).all()
    assert to_hex(palm.lines[0].get_color()) == method_color("palm")
    segments = [segment for segment in coop.lines[2][0].get_segments() if len(segment)]
    assert [*segments[0][:, 0]] == pytest.approx([0.0, 0.2]) and len(segments) == 1  # no NaN
    (band,) = ax.patches
    assert (band.get_x(), band.get_width()) == pytest.approx((-0.05, 0.1))
    labels = [part.get_label() for part in (band, coop, palm)]
    assert labels == ["± 0.05", method_label("coop"), method_label("palm")]
    assert not plots.plot_differences(table).patches and ax.get_xlabel() == "difference"


def test_differences_are_numbers_on_a_grid():
    points = pd.DataFrame({1: [-4.26, 0.0], 16: [12.0, -0.04]}, index=["a", "b"])
    ax = plots.plot_differences_grid(points, title="minus PALM")
    shown = {text.get_position(): text.get_text() for text in ax.texts}
    assert shown == {(0, 0): "-4.3", (1, 0): "+12.0", (0, 1): "+0.0", (1, 1): "+0.0"}
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    assert ax.get_title() == "minus PALM" and ax.images[0].get_clim() == (-10, 10)


def test_lambdas_by_class_are_sorted_by_the_learned_median():
    frame = pd.DataFrame({
        "class_name": ["b", "b", "a", "a"], "initial": [0.5] * 4, "learned": [0.9, 0.7, 0.1, 0.3],
    })  # fmt: skip
    ax = plots.plot_lambdas_by_class(frame)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    assert sum(len(patch) for patch in plots.plot_lambdas(frame).containers) == 80


def test_methods_have_distinct_colours_and_an_unknown_one_is_neutral():
    colors = [*plots.COLORS.values(), NEUTRAL]
    assert len(set(colors)) == len(colors) >= 6
    assert (method_color("gone"), method_label("gone")) == (NEUTRAL, "gone")


def test_figures_of_a_page_can_be_read():
    with plt.rc_context():
        plots.set_page_style()
        figure = plots.plot_image(np.zeros((8, 8))).figure
        assert figure.dpi == plots.PAGE_STYLE["figure.dpi"] >= 100


@pytest.mark.slow
def test_a_figure_is_kept_as_png_and_pdf(tmp_path):
    path = plots.save_figure(plots.plot_image(np.zeros((8, 8))), tmp_path / "run", "image")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_reliability_of_each_method():
    frame = pd.DataFrame({"confidence": [0.95, 0.95, 0.55, 0.95], "right": [1, 0, 1, 1]})
    ax = plots.plot_reliability(frame.assign(method=["palm", "palm", "palm", "coop"]))
    diagonal, palm, coop = ax.lines
    assert palm.get_xdata() == pytest.approx([0.55, 0.95]) and palm.get_ydata().tolist() == [1, 0.5]
    assert coop.get_ydata().tolist() == [1] and coop.get_label() == method_label("coop")
    assert palm.get_color() == method_color("palm") and ax.get_ylim() == (0, 1)
