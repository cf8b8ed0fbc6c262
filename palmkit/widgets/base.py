"""What all widgets share: a dataset, a line that says how things are, and long work that can be stopped."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import threading
import weakref
from pathlib import Path

import ipywidgets as w

from palmkit.datasets.resolve import list_folds
from palmkit.widgets.html import STYLE, Keys, escape, quiet
from palmkit.widgets.session import Stopped, list_datasets, open_task

ALL = -1  # classes, where a single one could be chosen
_benches: weakref.WeakSet = weakref.WeakSet()


def row(*children, align="center") -> w.HBox:
    return w.HBox(
        children, layout=w.Layout(flex_flow="row wrap", align_items=align, grid_gap="4px 14px")
    )


class Explorer(w.VBox):
    """A widget over an explorer's Task; `controls` has every control by its label.

    A subclass says what it is: `build` gives its rows, `fill` sets its controls for a new task, `show` draws, `prepare`
    is long work before all can be shown. Any error becomes one sentence in the line, for who uses a widget has no use
    for a traceback. Sliders and text need no delay: the browser sends a next value when the last one was answered.
    """

    title = hint = ""

    def __init__(self, dataset, model, fold):
        self.model, self.task, self.controls, self._quiet = model, None, {}, False
        self._cancel, self._thread, self._open = threading.Event(), None, (None, [("–", 0)], 0)
        names = [
            (Path(name).name, name) for name in dict.fromkeys([*list_datasets(), str(dataset)])
        ]
        self.dataset = self.control(w.Dropdown(options=names, value=str(dataset)), "Dataset")
        self.fold = self.control(w.Dropdown(options=[("–", fold or 0)]), "Fold")
        self.stop_button = self.control(w.Button(icon="stop", disabled=True), "Stop")
        self.bar, self.status, self.note = w.FloatProgress(max=1.0), w.HTML(), w.HTML()
        self.bar.layout = w.Layout(width="160px", height="18px")
        with self.quiet():
            self.body = w.VBox(self.build(), layout=w.Layout(display="none"))
        self.on(self.dataset, self.choose_dataset)
        self.on(self.fold, self.reopen)
        self.stop_button.on_click(lambda _: self.stop())
        head = w.HTML(f"<style>{STYLE}</style><h3>{self.title}</h3><p class=quiet>{self.hint}</p>")
        top = row(self.dataset, self.fold, self.stop_button, self.bar, self.status)
        super().__init__([head, top, self.body, row(self.note, Keys())])
        self.add_class("palmkit")
        _benches.add(self)
        self.reopen()

    def __repr__(self):
        return f"{self.title}: run this cell in JupyterLab to use the widget"

    def build(self) -> list:
        raise NotImplementedError

    def fill(self) -> None: ...

    def show(self) -> None: ...

    def prepare(self, told) -> str | None: ...

    def busy(self, working: bool) -> None:
        """Which buttons can be pressed; called before long work, and after."""
        self.stop_button.disabled, self.bar.layout.display = not working, "" if working else "none"

    # Controls

    def control(self, widget, label: str, width="auto", do=None):
        """Name a control, and say what it does when its value changes or it is pressed."""
        widget.description, widget.layout.width = label, width
        if not isinstance(widget, w.Button):
            widget.style.description_width = "initial"
        if do:
            self.on(widget, do)
        self.controls[label] = widget
        return widget

    def on(self, control, do) -> None:
        if isinstance(control, w.Button):
            control.on_click(lambda _: self.guard(do))
        else:
            control.observe(lambda _: None if self._quiet else self.guard(do), "value")

    def choice(self, label: str, do):
        return self.control(w.Dropdown(), label, do=do)

    def choose(self, control, options, value=...) -> None:
        """Give a choice other options, the first of them chosen. (None would be no choice at all.)"""
        with self.quiet():
            control.options = options
            first = control.options[0] if control.options else None
            control.value = (
                (first[1] if isinstance(first, tuple) else first) if value is ... else value
            )

    def guard(self, do, *arguments) -> None:
        try:
            if self.stop_button.disabled:  # else the line belongs to what is going on
                self.say("")
            do(*arguments)
        except Exception as error:  # whatever it is, it has to be seen
            self.say(error)

    @contextlib.contextmanager
    def quiet(self):
        """What the program sets does not call back."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def say(self, what: str | Exception) -> None:
        if isinstance(what, Exception):
            sentence = (str(what).splitlines() or [type(what).__name__])[0]
            self.status.value = f"<span class=error role=alert>⚠ {escape(sentence)}</span>"
        else:
            self.status.value = f"<span role=status>{escape(what)}</span>"

    # Long work

    def work(self, job) -> None:
        """job(told) in a thread, instead of the one before; what it returns is said at its end."""
        self._cancel.set()
        cancel = self._cancel = threading.Event()

        def told(done=0, total=0, text=""):
            if cancel.is_set():
                raise Stopped
            self.bar.value = done / total if total else 0
            self.say(f"{text}: {done} of {total}" if total else text and f"{text} ...")

        def run():
            try:
                end = job(told) or ""
            except Stopped:
                end = "stopped"
            except Exception as error:
                end = error
            if cancel is self._cancel:  # else the line is a newer job's
                self.go_back()
                self.busy(False)
                self.say(end)

        self.busy(True)
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._cancel.set()
        if not self.stop_button.disabled:
            self.say("stopping ...")

    def wait(self, timeout=None) -> None:
        """Until nothing is going on in the background."""
        self._thread.join(timeout)

    # Datasets

    def choose_dataset(self) -> None:
        self.choose(self.fold, [("–", 0)])
        self.reopen()

    def go_back(self) -> None:
        """After an opening that came to nothing: what was open before is still there."""
        if self.body.layout.display == "none":
            with self.quiet():
                self.dataset.value, self.fold.options, self.fold.value = self._open
            self.fold.disabled, self.body.layout.display = (
                len(self.fold.options) < 2,
                "" if self.task else "none",
            )

    def reopen(self) -> None:
        self.body.layout.display = "none"  # until all in it is the new dataset's
        dataset, fold = self.dataset.value, self.fold.value or None

        def job(told):
            task = open_task(dataset, self.model, fold, told)
            folds = [
                ("–" if number is None else str(number), number or 0)
                for number in list_folds(dataset)
            ]
            told()
            self.choose(self.fold, folds, task.data.fold or 0)
            self.fold.disabled, self.task, self._open = (
                len(folds) < 2,
                task,
                (dataset, folds, task.data.fold or 0),
            )
            with self.quiet():
                self.fill()
            self.show()
            self.body.layout.display, self.note.value = "", quiet(task.model.note)
            calm_collector()
            return self.prepare(told)

        self.work(job)


@functools.cache  # once
def calm_collector() -> None:
    """All that PyTorch brings along stays, and Python's collector walked through it every tenth answer, for 0.4 s."""
    gc.collect()
    gc.freeze()


@atexit.register
def _stop_all() -> None:
    for bench in list(_benches):  # a thread inside of torch must not outlive the interpreter
        bench.stop()
        bench.wait(2)
