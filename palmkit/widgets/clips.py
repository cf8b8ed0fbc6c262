"""One clip, to see and to hear, and what methods answer: four, and others on demand.

Listen shows any clip. Errors shows those that a method gets wrong.
"""

from __future__ import annotations

import ipywidgets as w
from matplotlib.figure import Figure

from palmkit.experiments.trials import PAPER_METHODS
from palmkit.methods import get_method
from palmkit.results.method_style import method_categories, method_label
from palmkit.results.plots import plot_image, plot_log_mel, plot_waveform
from palmkit.training import predict
from palmkit.widgets import session
from palmkit.widgets.base import ALL, Panel, row
from palmkit.widgets.html import (
    SoundInput,
    dot,
    escape,
    filled,
    number,
    picture,
    player,
    quiet,
    table,
)

BY_SPEED = ("zeroshot", "palm", "coop", "cocoop")


class ClipPanel(Panel):
    """A clip and the methods' answers. Methods are trained one by one, the fast ones first.

    The answers of a method are shown as soon as it is trained. Of the other methods, those that are
    asked for are added.
    """

    def build(self):
        self.added = []
        others = {
            name: cls for name, cls in session.bench_methods().items() if name not in BY_SPEED
        }
        options = [("–", ""), *((cls.label, name) for name, cls in others.items())]
        self.more = self.control(w.Dropdown(options=options), "Add a method", do=self.add_method)
        self.train = self.control(w.Button(icon="play"), "Train the rest", do=self.train_rest)
        self.pictures = w.HTML()
        self.answers = w.HTML()
        self.player = w.HTML()
        return [self.pictures, row(self.player, self.train, self.more), self.answers]

    def fill(self):
        self.methods = {}
        self.clip = None

    @property
    def wanted(self) -> list[str]:
        return [*BY_SPEED, *self.added]

    def add_method(self):
        name = self.more.value
        if name and name not in self.added:
            self.added.append(name)
            self.work(self.prepare)

    def train_rest(self):
        self.work(self.prepare)

    def busy(self, working):
        super().busy(working)
        done = self.task is None or len(self.methods) == len(self.wanted)
        self.train.disabled = working or done

    def prepare(self, on_progress):
        task = self.task
        for name in self.wanted:
            if name in self.methods:
                continue
            method = task.trained(name, on_progress).method
            on_progress()  # raises if another dataset was chosen, before anything is written
            self.methods[name] = method
            self.on_trained(name)

    def on_trained(self, name):
        self.show_answers()

    def show_recording(self, clip: session.Recording, label: int | None = None):
        self.clip = clip
        self.label = label
        self.pictures.value = draw_recording(clip, self.task.model)
        self.player.value = player(clip.sound_name, clip.data)
        self.show_answers()

    def show_answers(self):
        if self.clip is None:
            return
        names = self.task.class_names
        shown = [*PAPER_METHODS, *(name for name in self.methods if name not in PAPER_METHODS)]
        trained = [name for name in shown if name in self.methods]
        answers = session.verdicts({name: self.logits(name) for name in trained}, names)
        true = None if self.label is None else names[self.label]
        lines = []
        for name in shown:
            if name not in trained:
                lines.append([dot(name), "not trained yet", "", "", ""])
                continue
            classes = answers.loc[name, "classes"]
            bars = [filled(f"{escape(c)} {p:.2f}{' ✓' * (c == true)}", p) for c, p in classes]
            padding = [""] * (3 - len(bars))
            lines.append([dot(name), *bars, *padding, number(answers.loc[name, "margin"])])
        what = "a recording of yours" if true is None else f"true class: <b>{escape(true)}</b> (✓)"
        head = ["method", "first, with probability", "second", "third", "margin of the first"]
        name = escape(self.clip.name)
        self.answers.value = f"<p><b>{name}</b>, {what}</p>{table(head, lines)}{note(trained)}"

    def logits(self, name):
        clip = None if self.label is None else self.clip_choice.value
        return session.answer(self.task, self.methods[name], self.clip.feature, clip)


def note(names) -> str:
    """HTML: what a reader must know of these methods."""
    labels = [get_method(name).label for name in names if get_method(name).transductive]
    if not labels:
        return ""
    text = f"Transductive: the answers of {', '.join(labels)} depend on all test clips."
    return f"<p>{quiet(text)}</p>"


def draw_recording(clip: session.Recording, model) -> str:
    """HTML image of the waveform, and of log-mel and input image where the model has them."""
    edges = dict(left=0.055, right=0.99, top=0.96, bottom=0.15, wspace=0.22)
    figure = Figure(figsize=(11.6, 3.1), dpi=80)
    if clip.log_mel is None:
        axes = figure.add_subplot(figure.add_gridspec(1, 1, **edges)[0, 0])
        plot_waveform(clip.waveform.numpy(), axes, sample_rate=model.sample_rate)
        return picture(figure, f"{clip.name}: waveform")
    audio = model.audio
    size = len(clip.image)
    grid = figure.add_gridspec(2, 2, width_ratios=(2.6, 1), **edges)
    above = figure.add_subplot(grid[0, 0])
    below = figure.add_subplot(grid[1, 0])
    right = figure.add_subplot(grid[:, 1])
    rate = model.sample_rate
    waveform = plot_waveform(clip.waveform.numpy(), above, sample_rate=rate)
    waveform.set(xlabel="", xticklabels=[])
    bands = session.mel_frequencies(model)
    log_mel = clip.log_mel.numpy()
    scale = dict(hop=audio.hop_size, sample_rate=rate, frequencies=bands)
    plot_log_mel(log_mel, below, colorbar=False, **scale)
    plot_image(clip.image.numpy(), audio.segments, right).set(ylabel="")
    what = f"waveform, log-mel and the model's {size} x {size} image"
    return picture(figure, f"{clip.name}: {what}")


class Listen(ClipPanel):
    title = "Listen"
    hint = "A clip as the model gets it, and what methods answer."

    def build(self):
        self.class_choice = self.choice("Class", self.choose_class)
        self.clip_choice = self.choice("Clip", self.show)
        self.input = SoundInput(lambda name, data: self.guard(self.take, name, data))
        return [row(self.class_choice, self.clip_choice, self.input), *super().build()]

    def fill(self):
        super().fill()
        names = self.task.class_names
        self.choose(self.class_choice, [(name, n) for n, name in enumerate(names)])
        self.fill_clips()

    def fill_clips(self):
        of_class = self.task.test.labels == self.class_choice.value
        clips = of_class.nonzero()[:, 0].tolist()
        self.choose(self.clip_choice, [(self.task.clip_names[n], n) for n in clips])

    def choose_class(self):
        self.fill_clips()
        self.show()

    def show(self):
        clip = session.clip_recording(self.task, self.clip_choice.value)
        self.show_recording(clip, self.class_choice.value)

    def take(self, name: str, data: bytes):
        if self.task is None:
            raise ValueError("no dataset is open, so there are no classes for a recording")
        self.show_recording(session.uploaded_recording(self.task, name, data))


class Errors(ClipPanel):
    title = "Errors"
    hint = "Test clips that a method gets wrong. The first ones have the guess's logit far ahead."

    def __init__(self, dataset, model, fold, run):
        self.run = run
        super().__init__(dataset, model, fold)

    def build(self):
        self.method_choice = self.choice("Mistakes of", self.show)
        self.class_choice = self.choice("True class", self.show)
        self.list = self.control(w.Select(rows=8), "Mistakes", "560px", do=self.show_clip)
        self.count = w.HTML()
        top = row(self.method_choice, self.class_choice, self.count)
        return [top, self.list, *super().build()]

    def fill(self):
        super().fill()
        for control in (self.train, self.more):
            control.layout.display = "none" if self.run else ""
        self.test_logits = {}
        names = self.task.class_names
        classes = [("all", ALL), *((name, n) for n, name in enumerate(names))]
        self.choose(self.class_choice, classes)
        self.choose(self.method_choice, [])
        if self.run:
            self.test_logits = session.run_logits(self.task, self.run)
        self.methods = dict.fromkeys(self.test_logits)
        known = [(method_label(name), name) for name in self.test_logits]
        self.choose(self.method_choice, known)

    def prepare(self, on_progress):
        return None if self.run else super().prepare(on_progress)

    def on_trained(self, name):
        first = not self.test_logits
        chosen = self.method_choice.value or name
        self.test_logits[name] = predict(self.methods[name], self.task.test.features)
        known = [(get_method(n).label, n) for n in method_categories(self.test_logits)]
        self.choose(self.method_choice, known, chosen)
        if first:
            self.show()
        else:
            self.show_answers()

    def show(self):
        if self.method_choice.value is None:
            return
        names = self.task.class_names
        labels = self.task.test.labels
        true = self.class_choice.value
        among = labels == true if true != ALL else labels >= 0
        wrong = session.worst_mistakes(self.test_logits[self.method_choice.value], labels)
        wrong = wrong[among[list(wrong["clip"])].numpy()]
        lines = []
        for mistake in wrong.itertuples():
            clip = self.task.clip_names[mistake.clip]
            words = f"{names[mistake.label]} taken for {names[mistake.guess]}"
            lines.append((f"{clip}: {words}, {mistake.gap:.1f} ahead", mistake.clip))
        self.count.value = f"<span class=big>{len(lines)} of {int(among.sum())} clips</span>"
        self.choose(self.list, lines)
        if lines:
            self.show_clip()
        else:
            self.clip = None
            self.pictures.value = self.answers.value = self.player.value = ""

    def show_clip(self):
        clip = self.list.value
        label = int(self.task.test.labels[clip])
        self.show_recording(session.clip_recording(self.task, clip), label)

    def logits(self, name):
        return self.test_logits[name][self.list.value]
