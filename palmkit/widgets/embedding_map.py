"""Clips and texts in two dimensions: one class's lambda by hand (Lambda), and the whole dataset (Map)."""

from __future__ import annotations

import ipywidgets as w
import torch
import traitlets

from palmkit.methods.base import LOGIT_SCALE
from palmkit.widgets import session as explore
from palmkit.widgets.base import ALL, Explorer, row
from palmkit.widgets.html import Scatter, confusion_table, escape, legend, mark_of, point, quiet


class Space(Explorer):
    """Clips are marks of their class, texts are stars."""

    def build(self):
        self.scatter, self.legend = Scatter(lambda clip: self.guard(self.play, clip)), w.HTML()
        self.hover = self.control(w.Checkbox(True, indent=False), "Play on hover")
        traitlets.dlink((self.hover, "value"), (self.scatter, "hover"))
        return w.VBox([self.scatter, self.legend], layout=w.Layout(overflow="visible"))

    def fill(self):
        self.scatter.forget()
        self.legend.value = legend(self.task.class_names)

    def again(self):
        """What was stopped before all was ready, once a control asks for it."""
        if self.stop_button.disabled:
            self.work(self.prepare)

    def play(self, clip: int):
        self.scatter.play(clip, self.task.test.paths[clip])

    def points(self, clips, texts, chosen, told, size=6) -> list[dict]:
        """clips [n, 2], texts [c, 2]; chosen: the class that is not faint, or ALL; told(n): what a text says."""
        names, labels, faint = (
            self.task.class_names,
            self.task.test.labels.tolist(),
            lambda n: chosen not in (ALL, n),
        )
        points = [
            point(
                xy,
                f"{names[n]}: {clip}",
                clip=place,
                size=4 if faint(n) else 5,
                faint=faint(n),
                **mark_of(n),
            )
            for place, (xy, n, clip) in enumerate(
                zip(clips, labels, self.task.clip_names, strict=True)
            )
        ]
        for n, xy in enumerate(texts):
            mark = mark_of(n) | {
                "shape": "star",
                "size": size if faint(n) else 10,
                "faint": faint(n),
            }
            points.append(point(xy, told(n), name=names[n], **mark))
        return points


class LambdaBench(Space):
    title = "Lambda"
    hint = "At 0, PALM's text embedding of a class is its name's, at 1 the learned vector's; its star moves between."
    planes = {
        "of name and learned vector": "Across: along the name's embedding. Up: along what was learned beside it. The "
        "star never leaves this plane, so a clip's logit is 100 times the product of the two as seen here.",
        "of most variance": "The first two principal axes of clips and texts: what seems near may be far in another.",
    }

    def build(self):
        space = super().build()
        self.of = self.choice("Class", self.choose_class)
        self.slider = self.control(
            w.FloatSlider(0.5, min=0, max=1, step=0.01), "λ", "250px", do=self.slide
        )
        self.plane = self.control(w.Dropdown(options=[*self.planes]), "Plane", do=self.show)
        self.reset = self.control(w.Button(icon="undo"), "Reset to learned", do=self.set_back)
        self.score, self.counts, self.told = w.HTML(), w.HTML(), w.HTML()
        controls = row(self.of, self.slider, self.reset, self.plane, self.hover)
        return [controls, self.score, row(space, self.counts, align="flex-start"), self.told]

    def fill(self):
        super().fill()
        self.palm, self.score.value, self.counts.value = None, "", ""
        self.choose(self.of, [(name, n) for n, name in enumerate(self.task.class_names)])

    def prepare(self, told):
        palm, features = self.task.trained("palm", told).method, self.task.test.features
        told()
        self.learned = palm.lambdas.detach().cpu()
        text = explore.mixed_text(palm, self.learned)
        self.before = self.task.accuracy(LOGIT_SCALE * features @ text.T)
        self.widest = explore.Plane.principal(torch.cat([features, palm.f.cpu(), text]))
        self.palm = palm
        self.set_back()

    def set_back(self):
        if self.palm is None:
            return self.again()
        self.lambdas = self.learned.clone()
        self.choose_class()

    def choose_class(self):
        if self.palm is None:
            return self.again()
        with self.quiet():
            self.slider.value = round(float(self.lambdas[self.of.value]), 2)
        self.show()

    def slide(self):
        if self.palm is None:
            return self.again()
        self.lambdas[self.of.value] = self.slider.value
        self.show()

    def show(self):
        if self.palm is None:
            return
        names, n, features = self.task.class_names, self.of.value, self.task.test.features
        text = explore.mixed_text(self.palm, self.lambdas)
        logits = LOGIT_SCALE * features @ text.T
        counts = explore.confusion(logits, self.task.test.labels)
        self.counts.value = confusion_table(counts, names)
        accuracy, recall = self.task.accuracy(logits), counts[n, n] / max(counts[n].sum(), 1)
        self.score.value = (
            f"<span class=big>accuracy <b>{accuracy:.3f}</b></span> (learned: {self.before:.3f}); recall of "
            f"{escape(names[n])} <b>{recall:.2f}</b> at λ = {self.lambdas[n]:.2f} (learned: {self.learned[n]:.2f})"
        )
        self.told.value = quiet(self.planes[self.plane.value])
        plane = explore.Plane.of_class(self.palm, n) if self.plane.index == 0 else self.widest
        along = self.lambdas.repeat(41, 1)
        along[:, n] = torch.linspace(0, 1, 41)
        trail = plane(explore.mixed_text(self.palm, along)[:, n])
        told = "the text embedding of {} at λ = {:.2f}".format
        points = self.points(
            plane(features), plane(text), n, lambda m: told(names[m], self.lambdas[m])
        )
        self.scatter.show(points, f"Clips and texts, {names[n]} among them", trail)


class Map(Space):
    title = "Map"
    hint = "Test clips and texts of a dataset in two dimensions: what is near what, and how it sounds. Stars are texts."

    def build(self):
        space = super().build()
        self.kind = self.control(
            w.Dropdown(options=explore.PROJECTIONS), "Projection", do=self.move
        )
        self.texts, self.of = self.choice("Texts", self.move), self.choice("Class", self.show)
        return [row(self.kind, self.texts, self.of, self.hover), space]

    def fill(self):
        super().fill()
        self.known = self.places = None
        self.choose(
            self.of, [("all", ALL), *((name, n) for n, name in enumerate(self.task.class_names))]
        )

    def prepare(self, told):
        known = explore.map_texts(self.task, told)
        told()
        self.known = known
        self.choose(self.texts, [*known])
        self.project(told)

    def move(self):
        self.work(self.project if self.known else self.prepare)

    def project(self, told):
        kind = self.kind.value
        told(0, 0, f"computing {kind}")
        places = explore.project(
            torch.cat([self.task.test.features, self.known[self.texts.value]]), kind
        )
        told()  # stopped: the map stays as it was
        self.places = places
        self.show()

    def show(self):
        if self.places is None:
            return
        names, clips = self.task.class_names, len(self.task.test.labels)
        told = "the text of {}, {}".format
        parts, kind = (self.places[:clips], self.places[clips:]), self.texts.value
        points = self.points(*parts, self.of.value, lambda n: told(names[n], kind), size=8)
        self.scatter.show(
            points,
            f"{self.task.data.name} by {self.kind.value}: {clips} clips and {len(names)} texts",
        )
