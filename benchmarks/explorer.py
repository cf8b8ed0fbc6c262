"""How fast the explorer's widgets answer: processor time, and that in drawings of a plain figure.

    python benchmarks/explorer.py

An answer is all that happens from the change of a control until everything shown is set. The plain
figure has three empty panels. It is drawn before each change, so the ratio depends little on the
machine. The model is mini-PENGI, the dataset a generated one. Training is left out: it is no
answer. This takes a minute on one core.
"""

from __future__ import annotations

import io
import statistics
import time

import ipywidgets
import pandas as pd
import torch
from matplotlib.figure import Figure

from palmkit import load_pengi, widgets

CHANGES = 10
CONTROLS = {
    "listen": ["Class", "Clip"],
    "prompt_bench": ["Template", "Logits of clip"],
    "few_shot_bench": ["Shots"],
    "lambda_bench": ["λ", "Class", "Plane"],
    "embedding_map": ["Class", "Texts", "Projection"],
    "worst_errors": ["Mistakes of", "Mistakes", "True class"],
}


def main() -> None:
    torch.set_num_threads(1)
    model = load_pengi("mini", device="cpu")
    rows = []
    for name, labels in CONTROLS.items():
        bench = getattr(widgets, name)(model=model)
        bench.wait()
        rows += [{"widget": name, "control": label} | measure(bench, label) for label in labels]
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.2f}".format))


def measure(bench, label: str) -> dict[str, float]:
    """Median and slowest answer to changes of a control: seconds, and in plain drawings."""
    answers, drawings = [], []
    for _ in range(CHANGES):
        drawings.append(processor_time(draw_plainly))
        answers.append(processor_time(lambda: answer(bench, label)))
    middle, plain = statistics.median(answers), statistics.median(drawings)
    return {
        "seconds": middle,
        "slowest": max(answers),
        "drawings": middle / plain,
        "slowest in drawings": max(answers) / plain,
    }


def answer(bench, label: str) -> None:
    """Change a control, and wait for the work that the change starts."""
    control = bench.controls[label]
    if isinstance(control, ipywidgets.Button):
        control.click()
    elif isinstance(control, ipywidgets.Text):
        control.value += " of thunder"
    elif isinstance(control, ipywidgets.FloatSlider):
        control.value = 1.0 if control.value < 0.5 else 0.0
    elif isinstance(control, ipywidgets.IntSlider):
        control.value = control.min if control.value == control.max else control.value + 1
    else:  # a choice of several
        control.index = (control.index + 1) % len(control.options)
    bench.wait()


def draw_plainly() -> None:
    """A figure of the explorer's size with three empty panels, as PNG."""
    figure = Figure(figsize=(11.6, 2.7), dpi=80)
    for left in (0.05, 0.4, 0.75):
        figure.add_axes([left, 0.2, 0.2, 0.7])
    figure.savefig(io.BytesIO(), format="png")


def processor_time(do) -> float:
    start = time.process_time()
    do()
    return time.process_time() - start


if __name__ == "__main__":
    main()
