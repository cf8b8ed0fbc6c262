"""Clips and texts in two dimensions: one class's lambda by hand (Lambda), or a dataset (Map)."""

from __future__ import annotations

import ipywidgets as w
import torch
import traitlets

from palmkit.methods import PALM
from palmkit.widgets import session
from palmkit.widgets.base import ALL, Panel, row
from palmkit.widgets.html import Scatter, confusion_table, escape, legend, mark_of, point, quiet


class ScatterPanel(Panel):
    """A scatter plot: clips have the mark of their class, texts are stars."""

    def build(self):
        self.scatter = Scatter(lambda clip: self.guard(self.play, clip))
        self.legend = w.HTML()
        self.hover = self.control(w.Checkbox(True, indent=False), "Play on hover")
        traitlets.dlink((self.hover, "value"), (self.scatter, "hover"))
        return w.VBox([self.scatter, self.legend], layout=w.Layout(overflow="visible"))

    def fill(self):
        self.scatter.forget()
        self.legend.value = legend(self.task.class_names)

    def resume(self):
        """Start work again that was stopped before all was ready, when a control needs it."""
        if self.stop_button.disabled:
            self.work(self.prepare)

    def play(self, clip: int):
        sound = session.clip_sound(self.task, clip)
        self.scatter.play(clip, sound.name, sound.data)

    def points(self, clips, texts, chosen, text_label, size=6) -> list[dict]:
        """Points of the scatter plot.

        clips: [n, 2]. texts: [c, 2]. chosen: a class, or ALL; other classes are faint.
        text_label(n): the words of text n. size: of the faint stars.
        """
        names = self.task.class_names
        points = []
        labels = self.task.test.labels.tolist()
        triples = zip(clips, labels, self.task.clip_names, strict=True)
        for number, (xy, label, clip) in enumerate(triples):
            faint = chosen not in (ALL, label)
            mark = dict(size=4 if faint else 5, faint=faint, **mark_of(label))
            points.append(point(xy, f"{names[label]}: {clip}", clip=number, **mark))
        for label, xy in enumerate(texts):
            faint = chosen not in (ALL, label)
            star = {"shape": "star", "size": size if faint else 10, "faint": faint}
            mark = mark_of(label) | star
            points.append(point(xy, text_label(label), name=names[label], **mark))
        return points


def _has_lambdas(cls) -> bool:
    """Whether a method's classes have PALM's f, z and lambda, which it finds."""
    return issubclass(cls, PALM) and cls.learns


class LambdaBench(ScatterPanel):
    title = "Lambda"
    hint = (
        "At 0, PALM's text embedding of a class is its name's. At 1, it is the learned vector. "
        "Its star moves between the two."
    )
    planes = {
        "of name and learned vector": "Across: along the name's embedding. Up: along the part of "
        "the learned vector at a right angle to it. The star never leaves this plane, so a clip's "
        "logit is a constant times the product of the two as seen here.",
        "of most variance": "The first two principal axes of clips and texts. Points that are near "
        "here may be far apart in other dimensions.",
    }

    def build(self):
        space = super().build()
        self.class_choice = self.choice("Class", self.choose_class)
        slider = w.FloatSlider(0.5, min=0, max=1, step=0.01)
        self.slider = self.control(slider, "λ", "250px", do=self.slide)
        self.plane = self.control(w.Dropdown(options=[*self.planes]), "Plane", do=self.show)
        self.reset = self.control(w.Button(icon="undo"), "Reset to learned", do=self.set_back)
        with_lambdas = [
            (cls.label, name) for name, cls in session.bench_methods().items() if _has_lambdas(cls)
        ]
        self.method = self.control(
            w.Dropdown(options=with_lambdas, value="palm"), "Method", do=self.refit
        )
        self.score = w.HTML()
        self.counts = w.HTML()
        self.plane_note = w.HTML()
        controls = row(
            self.method, self.class_choice, self.slider, self.reset, self.plane, self.hover
        )
        below = row(space, self.counts, align="flex-start")
        return [controls, self.score, below, self.plane_note]

    def fill(self):
        super().fill()
        self.palm = None
        self.score.value = self.counts.value = ""
        names = self.task.class_names
        self.choose(self.class_choice, [(name, n) for n, name in enumerate(names)])

    def prepare(self, on_progress):
        palm = self.task.trained(self.method.value, on_progress).method
        on_progress()
        self.learned = palm.lambdas.detach().cpu()
        text = session.mixed_text(palm, self.learned)
        self.learned_accuracy = self.task.accuracy(self.logits(text))
        vectors = torch.cat([self.task.features, palm.f.cpu(), text])
        self.widest = session.Plane.principal(vectors)
        self.palm = palm
        self.set_back()

    def refit(self):
        self.work(self.prepare)

    def set_back(self):
        if self.palm is None:
            return self.resume()
        self.lambdas = self.learned.clone()
        self.choose_class()

    def choose_class(self):
        if self.palm is None:
            return self.resume()
        with self.quiet():
            self.slider.value = round(float(self.lambdas[self.class_choice.value]), 2)
        self.show()

    def slide(self):
        if self.palm is None:
            return self.resume()
        self.lambdas[self.class_choice.value] = self.slider.value
        self.show()

    def show(self):
        if self.palm is None:
            return
        text = session.mixed_text(self.palm, self.lambdas)
        self.show_score(text)
        self.show_plane(text)

    def logits(self, text) -> torch.Tensor:
        """[clips, c] of the test clips with text embeddings [c, dim]."""
        return self.task.model.logit_scale * self.task.features @ text.T

    def show_score(self, text):
        names = self.task.class_names
        n = self.class_choice.value
        logits = self.logits(text)
        counts = session.confusion(logits, self.task.test.labels)
        self.counts.value = confusion_table(counts, names)
        accuracy = self.task.accuracy(logits)
        recall = counts[n, n] / max(counts[n].sum(), 1)
        self.score.value = (
            f"<span class=big>accuracy <b>{accuracy:.3f}</b></span> "
            f"(learned: {self.learned_accuracy:.3f}); recall of {escape(names[n])} "
            f"<b>{recall:.2f}</b> at λ = {self.lambdas[n]:.2f} (learned: {self.learned[n]:.2f})"
        )

    def show_plane(self, text):
        names = self.task.class_names
        n = self.class_choice.value
        self.plane_note.value = quiet(self.planes[self.plane.value])
        own_plane = self.plane.index == 0
        plane = session.Plane.of_class(self.palm, n) if own_plane else self.widest
        steps = self.lambdas.repeat(41, 1)
        steps[:, n] = torch.linspace(0, 1, 41)
        trail = plane(session.mixed_text(self.palm, steps)[:, n])

        def label(m):
            return f"the text embedding of {names[m]} at λ = {self.lambdas[m]:.2f}"

        points = self.points(plane(self.task.features), plane(text), n, label)
        self.scatter.show(points, f"Clips and texts, {names[n]} among them", trail)


class Map(ScatterPanel):
    title = "Map"
    hint = (
        "Test clips and texts of a dataset in two dimensions, to see and to hear. Stars are texts."
    )

    def build(self):
        space = super().build()
        kinds = w.Dropdown(options=session.PROJECTIONS)
        self.kind = self.control(kinds, "Projection", do=self.move)
        self.texts = self.choice("Texts", self.move)
        self.class_choice = self.choice("Class", self.show)
        return [row(self.kind, self.texts, self.class_choice, self.hover), space]

    def fill(self):
        super().fill()
        self.text_embeddings = None
        self.places = None
        self.known = {}  # places that were computed, by projection and kind of text
        names = self.task.class_names
        classes = [("all", ALL), *((name, n) for n, name in enumerate(names))]
        self.choose(self.class_choice, classes)

    def prepare(self, on_progress):
        text_embeddings = session.map_texts(self.task, on_progress)
        on_progress()
        self.text_embeddings = text_embeddings
        self.choose(self.texts, [*text_embeddings])
        self.project(on_progress)

    def move(self):
        self.work(self.project if self.text_embeddings else self.prepare)

    def project(self, on_progress):
        kind = self.kind.value
        place = (kind, self.texts.value)
        if place not in self.known:
            on_progress(0, 0, f"computing {kind}")
            features = torch.cat([self.task.features, self.text_embeddings[self.texts.value]])
            places = session.project(features, kind)
            on_progress()  # raises if it was stopped, and the map stays as it was
            self.known[place] = places
        self.places = self.known[place]
        self.show()

    def show(self):
        if self.places is None:
            return
        names = self.task.class_names
        n_clips = len(self.task.test.labels)
        clips = self.places[:n_clips]
        texts = self.places[n_clips:]
        kind = self.texts.value

        def label(n):
            return f"the text of {names[n]}, {kind}"

        points = self.points(clips, texts, self.class_choice.value, label, size=8)
        what = f"{n_clips} clips and {len(names)} texts"
        self.scatter.show(points, f"{self.task.data.name} by {self.kind.value}: {what}")
