"""Tables of costs, on rows and times that can be worked out."""

import numpy as np
import pandas as pd
import pytest

from palmkit.experiments.profiling import BASE
from palmkit.results import costs


def cost_rows(device="cpu", model="full", threads=2, **seconds):
    """A line for each method: a training step at BASE, and one with other classes."""
    lines = []
    for method, value in seconds.items():
        line = dict(method=method, what="training step", device=device, model=model)
        line |= BASE | dict(threads=threads, seconds=value, mib=10 * value)
        lines += [line, line | {"classes": 4, "seconds": 99.0}]
    return pd.DataFrame(lines)


ROWS = pd.concat(
    [
        cost_rows(palm=1.0, coop=3.0),
        cost_rows(threads=1, palm=2.0, coop=8.0),
        cost_rows(device="cuda", palm=0.5, coop=0.6),
        cost_rows(model="small", palm=0.1, coop=0.2),
    ],
    ignore_index=True,
)


def test_values_at_base():
    rows = costs.main_rows(ROWS)
    assert costs.pick(rows, "training step").to_dict() == {"palm": 1.0, "coop": 3.0}
    assert costs.pick(rows, "training step", "mib", threads=1).to_dict() == {"palm": 20, "coop": 80}
    assert costs.pick(rows, "training step, published").empty
    gpu = costs.gpu_rows(ROWS)
    assert costs.pick(gpu, "training step").to_dict() == {"palm": 0.5, "coop": 0.6}
    assert costs.gpu_rows(rows).empty
    assert costs.main_rows(gpu)["device"].unique() == ["cuda"]


def test_encoding_of_a_batch():
    lines = [dict(what="encode", threads=t, seconds=s) for t, s in ((1, 9.0), (2, 5.0))]
    assert costs.encoding(pd.DataFrame(lines)) == 5.0
    assert np.isnan(costs.encoding(pd.DataFrame(lines), "encode, backward"))


def test_ratios_are_to_palm_line_by_line():
    table = costs.ratios({"a": pd.Series({"palm": 2.0, "coop": 6.0}), "b": pd.Series(dtype=float)})
    assert table.loc["a"].to_dict() == {"coop": 3.0} and table.loc["b"].isna().all()
    assert costs.ratios({"b": pd.Series({"coop": 1.0})}).isna().all(axis=None)


def times():
    """COOP: 1 s and 0.2 s a step; PALM: 2 s and 0.1 s a step; two seeds, one of them a hitch."""
    lines = []
    for dataset, clips in (("a", 160), ("b", 161), ("c", 800)):
        steps = {"a": 10, "b": 11, "c": 50}[dataset]
        for seed in (0, 1, 2):
            for method, beside, step in (("coop", 1, 0.2), ("palm", 2, 0.1)):
                epoch = beside + steps * step + 5 * (seed == 2)
                line = dict(method=method, dataset=dataset, fold=1, seed=seed, n_train=clips)
                lines.append(line | {"epoch_seconds": epoch})
    return pd.DataFrame(lines)


def test_a_line_through_the_datasets_has_the_time_of_a_step():
    lines = costs.step_lines(times())
    assert lines.loc["coop", ["step", "beside"]].tolist() == pytest.approx([0.2, 1])
    assert lines.loc["palm", ["step", "beside"]].tolist() == pytest.approx([0.1, 2])
    assert lines["datasets"].tolist() == [3, 3]


def test_epochs_are_compared_in_pairs():
    table = costs.epoch_ratios(times())
    assert list(table) == ["coop"] and table["coop"].tolist() == pytest.approx(
        [3 / 3, 3.2 / 3.1, 11 / 7]
    )


def test_step_times_over_one_size_at_a_time():
    import matplotlib.pyplot as plt

    rows = pd.concat(
        [cost_rows(palm=1.0, coop=3.0), cost_rows(palm=2.0, coop=4.0).assign(batch=64)]
    ).assign(fastest=lambda f: 0.9 * f["seconds"], slowest=lambda f: 2 * f["seconds"])
    fig, axes = plt.subplots(1, 3, layout="constrained")
    costs.plot_step_times(rows, axes)
    palm = {ax.get_xlabel(): ax.containers[1].lines[0].get_xydata().tolist() for ax in axes}
    assert palm["batch"] == [[16, 1.0], [64, 2.0]]
    assert palm["classes"] == [[4, 99.0], [10, 1.0]] and palm["context tokens"] == [[16, 1.0]]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["COOP", "PALM"]
    plt.close(fig)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123456, "0.0123"),
        (1.0516, "1.05"),
        (217.4, "217"),
        (1441.2, "1,440"),
        (0, "0"),
        (np.nan, "not measured"),
    ],
)
def test_three_significant_digits(value, text):
    assert costs.format_cost(value) == text
