"""One clip, seen and heard, and what four methods say of it: any (Listen), or one that is wrong (Errors)."""

from __future__ import annotations

import ipywidgets as w
from matplotlib.figure import Figure

from palmkit.experiments.trials import PAPER_METHODS
from palmkit.results.plots import plot_image, plot_log_mel, plot_waveform
from palmkit.results.tables import METHOD_NAMES
from palmkit.training import predict
from palmkit.widgets import session as explore
from palmkit.widgets.base import ALL, Explorer, row
from palmkit.widgets.html import SoundInput, dot, escape, filled, number, picture, player, table

BY_SPEED = ("zeroshot", "palm", "coop", "cocoop")


class Comparing(Explorer):
    """Methods are trained one after the other, the fast ones first; each speaks as soon as it is."""

    def build(self):
        self.train = self.control(
            w.Button(icon="play"), "Train the rest", do=lambda: self.work(self.prepare)
        )
        self.seen, self.said, self.player = w.HTML(), w.HTML(), w.HTML()
        return [self.seen, row(self.player, self.train), self.said]

    def fill(self):
        self.methods, self.sound = {}, None

    def busy(self, working):
        super().busy(working)
        self.train.disabled = working or self.task is None or len(self.methods) == len(BY_SPEED)

    def prepare(self, told):
        task = self.task
        for name in BY_SPEED:
            method = task.trained(name, told).method
            told()  # nothing of this dataset is written once another was chosen
            self.methods[name] = method
            self.learned(name)

    def learned(self, name):
        self.judge()

    def hear(self, sound: explore.Sound, label: int | None = None):
        self.sound, self.label = sound, label
        audio, size = self.task.model.audio, len(sound.image)
        figure = Figure(figsize=(11.6, 3.1), dpi=80)
        edges = dict(left=0.055, right=0.99, top=0.96, bottom=0.15, wspace=0.22)
        grid = figure.add_gridspec(2, 2, width_ratios=(2.6, 1), **edges)
        above, below, right = (
            figure.add_subplot(grid[place]) for place in ((0, 0), (1, 0), (slice(None), 1))
        )
        plot_waveform(sound.waveform.numpy(), above).set(xlabel="", xticklabels=[])
        bands = explore.mel_frequencies(self.task.model)
        plot_log_mel(
            sound.log_mel.numpy(), below, audio.hop_size, colorbar=False, frequencies=bands
        )
        plot_image(sound.image.numpy(), audio.segments, right).set(ylabel="")
        self.seen.value = picture(
            figure, f"{sound.name}: waveform, log-mel and the model's {size} x {size} image"
        )
        self.player.value = player(sound.name, sound.data)
        self.judge()

    def judge(self):
        if self.sound is None:
            return
        names, known = (
            self.task.class_names,
            [name for name in PAPER_METHODS if name in self.methods],
        )
        told = explore.verdicts({name: self.logits(name) for name in known}, names)
        true = None if self.label is None else names[self.label]
        lines = []
        for name in PAPER_METHODS:
            classes = told.loc[name, "classes"] if name in known else []
            bars = [filled(f"{escape(c)} {p:.2f}{' ✓' * (c == true)}", p) for c, p in classes] or [
                "not trained yet"
            ]
            margin = number(told.loc[name, "margin"]) if classes else ""
            lines.append([dot(name), *bars, *[""] * (3 - len(bars)), margin])
        what = "a recording of yours" if true is None else f"in truth <b>{escape(true)}</b> (✓)"
        head = ["method", "first, with probability", "second", "third", "margin of the first"]
        self.said.value = f"<p><b>{escape(self.sound.name)}</b>, {what}</p>{table(head, lines)}"

    def logits(self, name):
        return predict(self.methods[name], self.sound.feature[None])[0]


class Listen(Comparing):
    title = "Listen"
    hint = "A clip as the model gets it, and what four methods make of it."

    def build(self):
        self.of, self.clip = self.choice("Class", self.choose_class), self.choice("Clip", self.show)
        self.input = SoundInput(lambda name, data: self.guard(self.take, name, data))
        return [row(self.of, self.clip, self.input), *super().build()]

    def fill(self):
        super().fill()
        self.choose(self.of, [(name, n) for n, name in enumerate(self.task.class_names)])
        self.fill_clips()

    def fill_clips(self):
        own = (self.task.test.labels == self.of.value).nonzero()[:, 0].tolist()
        self.choose(self.clip, [(self.task.clip_names[n], n) for n in own])

    def choose_class(self):
        self.fill_clips()
        self.show()

    def show(self):
        self.hear(explore.clip_sound(self.task, self.clip.value), self.of.value)

    def take(self, name: str, data: bytes):
        if self.task is None:
            raise ValueError(
                "no dataset is open, so there are no classes to compare a recording with"
            )
        self.hear(explore.own_sound(self.task, name, data))


class Errors(Comparing):
    title = "Errors"
    hint = "Test clips that a method gets wrong; the worst first, by how far the guess's logit is ahead."

    def __init__(self, dataset, model, fold, run):
        self.run = run
        super().__init__(dataset, model, fold)

    def build(self):
        self.whose, self.of = (
            self.choice("Mistakes of", self.show),
            self.choice("True class", self.show),
        )
        self.list = self.control(w.Select(rows=8), "Mistakes", "560px", do=self.show_clip)
        self.count = w.HTML()
        return [row(self.whose, self.of, self.count), self.list, *super().build()]

    def fill(self):
        super().fill()
        self.train.layout.display, self.kept = "none" if self.run else "", {}
        self.choose(
            self.of, [("all", ALL), *((name, n) for n, name in enumerate(self.task.class_names))]
        )
        self.choose(self.whose, [])
        if self.run:
            self.kept = explore.run_logits(self.task, self.run)
        self.methods = dict.fromkeys(self.kept)
        self.choose(self.whose, [(METHOD_NAMES[name], name) for name in self.kept])

    def prepare(self, told):
        return None if self.run else super().prepare(told)

    def learned(self, name):
        first, chosen = not self.kept, self.whose.value
        self.kept[name] = predict(self.methods[name], self.task.test.features)
        self.choose(
            self.whose,
            [(METHOD_NAMES[n], n) for n in PAPER_METHODS if n in self.kept],
            chosen or name,
        )
        self.show() if first else self.judge()

    def show(self):
        if self.whose.value is None:
            return
        names, labels, true = self.task.class_names, self.task.test.labels, self.of.value
        own = labels == true if true != ALL else labels >= 0
        wrong = explore.worst_mistakes(self.kept[self.whose.value], labels)
        wrong = wrong[own[list(wrong["clip"])].numpy()]
        told = "{}: {} taken for {}, {:.1f} ahead".format
        lines = [
            (told(self.task.clip_names[clip], names[label], names[guess], gap), clip)
            for clip, label, guess, gap in wrong[["clip", "label", "guess", "gap"]].itertuples(
                index=False
            )
        ]
        self.count.value = f"<span class=big>{len(lines)} of {int(own.sum())} clips</span>"
        self.choose(self.list, lines)
        if lines:
            self.show_clip()
        else:
            self.sound, self.seen.value, self.said.value, self.player.value = None, "", "", ""

    def show_clip(self):
        clip = self.list.value
        self.hear(explore.clip_sound(self.task, clip), int(self.task.test.labels[clip]))

    def logits(self, name):
        return self.kept[name][self.list.value]
