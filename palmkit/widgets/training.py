"""Few-shot bench: a training with its curves."""

from __future__ import annotations

import ipywidgets as w
from matplotlib.figure import Figure

from palmkit.methods import get_method
from palmkit.models.about import default_settings
from palmkit.widgets import session
from palmkit.widgets.base import Panel, row
from palmkit.widgets.html import dot, number, picture, quiet, table

PENGI_RATE = 0.05  # as published
RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
LINES = {"-": "", "--": "kept, dashed", ":": "kept, dotted", "-.": "kept, dash-dotted"}
# Left and width of each panel. Class names stand to the left of the last one.
PANELS = ((0.04, 0.27), (0.36, 0.27), (0.77, 0.22))
DRAWINGS = 100  # of one training at most: a drawing takes longer than an epoch of PALM
EARLY = 20  # epochs of an own fit that are all drawn; later ones more and more rarely
NOTHING = "–"


class FewShotBench(Panel):
    title = "Few-shot bench"
    hint = (
        "Train and watch. Accuracy is that of the test clips: "
        "a setting that is chosen by it is chosen by the test set."
    )

    def build(self):
        self.settings = self.build_settings()
        self.train = self.control(w.Button(icon="play"), "Train", do=self.start)
        self.keep = self.control(w.Button(icon="plus"), "Keep", do=self.keep_run)
        self.clear = self.control(w.Button(icon="trash"), "Clear kept", do=self.clear_runs)
        self.curves = w.HTML()
        self.runs = w.HTML()
        self.summary = w.HTML()
        self.now = None
        self.kept = []
        buttons = row(self.train, self.keep, self.clear, self.summary)
        return [row(*self.settings.values()), buttons, self.curves, self.runs]

    def build_settings(self) -> dict:
        do = self.describe
        methods = [(cls.label, name) for name, cls in session.bench_methods().items() if cls.learns]
        name = w.Dropdown(options=methods, value="palm")
        lr = w.SelectionSlider(options=RATES, value=PENGI_RATE)  # a logarithmic slider has no 0.05
        return {
            "name": self.control(name, "Method", do=do),
            "shots": self.control(w.IntSlider(16, 1, 16), "Shots", "210px", do=do),
            "seed": self.control(w.BoundedIntText(0, 0, 999), "Seed", "110px", do=do),
            "lr": self.control(lr, "Learning rate", "260px", do=do),
            "epochs": self.control(w.IntSlider(50, 1, 200), "Epochs", "220px", do=do),
        }

    def fill(self):
        self.now = None
        self.kept = []
        shots = self.settings["shots"]
        shots.max = self.task.max_shots()
        shots.value = min(16, shots.max)
        stated = default_settings(self.task.model).get("lr", PENGI_RATE)
        self.settings["lr"].options = sorted({*RATES, stated})
        self.settings["lr"].value = stated
        self.describe()

    def chosen(self) -> dict:
        return {name: control.value for name, control in self.settings.items()}

    def describe(self):
        chosen = self.chosen()
        clips = chosen["shots"] * len(self.task.class_names)
        steps = -(-clips // 16) * chosen["epochs"]
        method = get_method(chosen["name"])
        for name in ("lr", "epochs"):
            self.settings[name].disabled = method.own_fit
        how = "by a fit of its own" if method.own_fit else f"{steps} steps at {chosen['lr']:g}"
        text = f"{method.label}: {clips} clips of draw {chosen['seed']}, {how}"
        states_rate = "lr" in default_settings(self.task.model)
        if not (states_rate or method.own_fit) and chosen["lr"] == PENGI_RATE:
            text += f", which is PENGI's rate; {self.task.model.name} states none"
        if method.transductive:
            text += "; it sees all test clips at once, so it is not comparable with others"
        self.summary.value = quiet(text)

    def busy(self, working):
        super().busy(working)
        now = self.now
        nothing_new = now is None or now in self.kept or not now.accuracies
        self.train.disabled = working or self.task is None
        self.keep.disabled = working or nothing_new
        self.clear.disabled = working or not self.kept

    def start(self):
        self.work(self.run_training)

    def run_training(self, on_progress):
        task = self.task
        chosen = self.chosen()
        own_fit = get_method(chosen["name"]).own_fit
        epochs = 0 if own_fit else chosen["epochs"]  # of its own ones the number is not known
        drawn = 0  # epochs in the latest drawing

        def on_epoch(run):
            nonlocal drawn
            epoch = len(run.losses)
            reached = f" {epoch}" if own_fit else ""
            on_progress(epoch, epochs, f"accuracy {run.accuracies[-1]:.3f}, epoch{reached}")
            self.now = run
            every = -(-epoch // EARLY) if own_fit else -(-epochs // DRAWINGS)
            if epoch and epoch % every == 0:
                self.show()
                drawn = epoch

        try:
            session.train(task, **chosen, on_progress=on_progress, on_epoch=on_epoch, track=True)
        finally:
            # It may have been stopped, but not by another dataset.
            if self.task is task and not (drawn and drawn == len(self.now.losses)):
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
            self.curves.value = ""
            self.runs.value = quiet("Train starts a run. Keep holds it, to compare the next one.")
            return
        shown = self.kept + ([now] if now not in self.kept else [])
        end = f"accuracy {now.accuracies[-1]:.3f}" if now.accuracies else "no epoch yet"
        self.curves.value = picture(self.draw(shown), f"Loss, accuracy and lambda by epoch: {end}")
        self.runs.value = self.table(shown)

    def draw(self, shown) -> Figure:
        figure = Figure(figsize=(11.6, 2.7), dpi=80)
        loss, accuracy, weights = (figure.add_axes([x, 0.18, width, 0.73]) for x, width in PANELS)
        for run in shown:
            style = dict(color=get_method(run.name).color, linestyle=self.line(run))
            curves = ((loss, run.losses), (accuracy, run.accuracies[: len(run.losses)]))
            for ax, values in curves:
                ax.plot(range(1, len(values) + 1), values, **style)
            if run.accuracies and not run.losses:  # no epochs: a level to compare with
                accuracy.axhline(run.accuracies[-1], **style)
        loss.set(xlabel="epoch", title="loss, mean of an epoch", ylim=(0, None))
        accuracy.set(xlabel="epoch", title="accuracy, test clips", ylim=(0, 1.02))
        self.draw_lambdas(weights)
        return figure

    def line(self, run) -> str:
        return [*LINES][1 + self.kept.index(run) % 3] if run in self.kept else "-"

    def draw_lambdas(self, ax):
        names = self.task.class_names
        run = self.now
        bottom = len(names) - 0.4
        ax.set(title="λ of each class", xlim=(0, 1), ylim=(bottom, -0.6), yticks=range(len(names)))
        ax.set_yticklabels(names, fontsize=min(9, 130 / len(names)))
        if run.lambdas:
            ax.barh(
                range(len(names)), run.lambdas[-1], color=get_method(run.name).color, height=0.6
            )
            if run.losses:
                ax.plot(run.lambdas[0], range(len(names)), "|", color="black", markersize=9)
                ax.set_xlabel("bar: now, tick: after epoch 1")
        else:
            text = f"{get_method(run.name).label} has no λ"
            ax.text(0.5, len(names) / 2 - 0.5, text, ha="center")

    def table(self, shown) -> str:
        lines = []
        for run in shown:
            chosen = run.settings
            rate, epochs = f"{chosen['lr']:g}", f"{len(run.losses)} of {chosen['epochs']}"
            if get_method(run.name).own_fit:
                rate, epochs = NOTHING, str(len(run.losses) or NOTHING)
            settings = [chosen["shots"], chosen["seed"], rate, epochs]
            curves = (run.losses, run.accuracies)
            ends = [number(values[-1], ".3f") if values else "" for values in curves]
            name = dot(run.name)
            if get_method(run.name).transductive:
                name += " (transductive)"
            lines.append([name, *settings, *ends, LINES[self.line(run)]])
        head = ["method", "shots", "seed", "learning rate", "epochs", "loss", "accuracy", ""]
        return table(head, lines)
