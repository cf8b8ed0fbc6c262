"""Few-shot bench: training, watched."""

from __future__ import annotations

import ipywidgets as w
from matplotlib.figure import Figure

from palmkit.experiments.trials import PAPER_METHODS
from palmkit.results.plots import COLORS
from palmkit.results.tables import METHOD_NAMES
from palmkit.widgets import session as explore
from palmkit.widgets.base import Explorer, row
from palmkit.widgets.html import dot, number, picture, quiet, table

LINES = {"-": "", "--": "kept, dashed", ":": "kept, dotted", "-.": "kept, dash-dotted"}
PANELS = (
    (0.04, 0.27),
    (0.36, 0.27),
    (0.77, 0.22),
)  # left and width of each; names stand before the last
DRAWINGS = 100  # of one training at most: a picture of it takes longer than an epoch of PALM


class FewShotBench(Explorer):
    title = "Few-shot bench"
    hint = "Train and watch. Accuracy is the test clips': a setting that is chosen by it is chosen by the test set."

    def build(self):
        methods = [(METHOD_NAMES[name], name) for name in PAPER_METHODS[1:]]
        rates = [
            0.001,
            0.002,
            0.005,
            0.01,
            0.02,
            0.05,
            0.1,
            0.2,
            0.5,
            1,
            2,
            5,
        ]  # a slider of logarithms has no 0.05
        self.settings = {
            "name": self.control(w.Dropdown(options=methods, value="palm"), "Method", do=self.plan),
            "shots": self.control(w.IntSlider(16, 1, 16), "Shots", "210px", do=self.plan),
            "seed": self.control(w.BoundedIntText(0, 0, 999), "Seed", "110px", do=self.plan),
            "lr": self.control(
                w.SelectionSlider(options=rates, value=0.05), "Learning rate", "260px", do=self.plan
            ),
            "epochs": self.control(w.IntSlider(50, 1, 200), "Epochs", "220px", do=self.plan),
        }
        self.train = self.control(w.Button(icon="play"), "Train", do=lambda: self.work(self.learn))
        self.keep = self.control(w.Button(icon="plus"), "Keep", do=self.keep_run)
        self.clear = self.control(w.Button(icon="trash"), "Clear kept", do=self.clear_runs)
        self.curves, self.runs, self.planned, self.now, self.kept = (
            w.HTML(),
            w.HTML(),
            w.HTML(),
            None,
            [],
        )
        buttons = row(self.train, self.keep, self.clear, self.planned)
        return [row(*self.settings.values()), buttons, self.curves, self.runs]

    def fill(self):
        self.now, self.kept = None, []
        shots = self.settings["shots"]
        shots.max = self.task.most_shots()
        shots.value = min(16, shots.max)
        self.plan()

    def chosen(self) -> dict:
        return {name: control.value for name, control in self.settings.items()}

    def plan(self):
        chosen = self.chosen()
        clips = chosen["shots"] * len(self.task.class_names)
        steps = -(-clips // 16) * chosen["epochs"]
        told = f"{clips} clips of draw {chosen['seed']}, {steps} steps at {chosen['lr']:g}"
        self.planned.value = quiet(f"{METHOD_NAMES[chosen['name']]}: {told}")

    def busy(self, working):
        super().busy(working)
        self.train.disabled = working or self.task is None
        self.keep.disabled = (
            working or self.now is None or self.now in self.kept or not self.now.accuracies
        )
        self.clear.disabled = working or not self.kept

    def learn(self, told):
        task, chosen = self.task, self.chosen()
        epochs = chosen["epochs"]
        every = -(-epochs // DRAWINGS)

        def on_epoch(run):
            epoch = len(run.losses)
            told(epoch, epochs, f"accuracy {run.accuracies[-1]:.3f}, epoch")
            self.now = run
            if epoch % every == 0:
                self.show()

        try:
            explore.train(task, **chosen, told=told, on_epoch=on_epoch, follow=True)
        finally:
            if self.task is task:  # stopped, perhaps, but not by another dataset
                self.show()

    def keep_run(self):
        self.kept = [*self.kept, self.now]
        self.busy(False)
        self.show()

    def clear_runs(self):
        self.kept = []
        self.busy(False)
        self.show()

    def show(self):
        now = self.now
        if not now:
            self.curves.value, self.runs.value = (
                "",
                quiet("Train starts one here; Keep holds it, to compare the next."),
            )
            return
        shown = self.kept + ([now] if now not in self.kept else [])
        figure = Figure(figsize=(11.6, 2.7), dpi=80)
        loss, accuracy, weights = (figure.add_axes([x, 0.18, width, 0.73]) for x, width in PANELS)
        for run in shown:
            style = dict(color=COLORS[run.name], linestyle=self.line(run))
            for ax, values in ((loss, run.losses), (accuracy, run.accuracies)):
                ax.plot(range(1, len(values) + 1), values, **style)
        loss.set(xlabel="epoch", title="loss, mean of an epoch", ylim=(0, None))
        accuracy.set(xlabel="epoch", title="accuracy, test clips", ylim=(0, 1.02))
        self.draw_lambdas(weights)
        told = f"accuracy {now.accuracies[-1]:.3f}" if now.accuracies else "no epoch yet"
        self.curves.value = picture(figure, f"Loss, accuracy and lambda by epoch: {told}")
        self.runs.value = self.table(shown)

    def line(self, run) -> str:
        return [*LINES][1 + self.kept.index(run) % 3] if run in self.kept else "-"

    def draw_lambdas(self, ax):
        names, run = self.task.class_names, self.now
        ax.set(
            title="λ of each class",
            xlim=(0, 1),
            yticks=range(len(names)),
            ylim=(len(names) - 0.4, -0.6),
        )
        ax.set_yticklabels(names, fontsize=min(9, 130 / len(names)))
        if run.lambdas:
            ax.barh(range(len(names)), run.lambdas[-1], color=COLORS["palm"], height=0.6)
            ax.plot(run.lambdas[0], range(len(names)), "|", color="black", markersize=9)
            ax.set_xlabel("bar: now, tick: after epoch 1")
        else:
            ax.text(0.5, len(names) / 2 - 0.5, f"{METHOD_NAMES[run.name]} has no λ", ha="center")

    def table(self, shown) -> str:
        lines = []
        for run in shown:
            chosen = run.settings
            told = [
                chosen["shots"],
                chosen["seed"],
                f"{chosen['lr']:g}",
                f"{len(run.losses)} of {chosen['epochs']}",
            ]
            ends = [
                number(values[-1], ".3f") if values else ""
                for values in (run.losses, run.accuracies)
            ]
            lines.append([dot(run.name), *told, *ends, LINES[self.line(run)]])
        head = ["method", "shots", "seed", "learning rate", "epochs", "loss", "accuracy", ""]
        return table(head, lines)
