"""What all widgets share: a dataset, a status line, and long work that can be stopped."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import threading
import weakref
from pathlib import Path

from palmkit.datasets.resolve import list_folds
from palmkit.extras import extra
from palmkit.widgets.html import STYLE, Keys, escape, quiet
from palmkit.widgets.session import Stopped, list_datasets, open_task

with extra("widgets"):
    import ipywidgets as w

ALL = -1  # in a choice of classes: all of them
NO_FOLD = ("–", 0)  # a dropdown's value cannot be None, so a single split is fold 0
_panels: weakref.WeakSet = weakref.WeakSet()


def row(*children, align="center") -> w.HBox:
    layout = w.Layout(flex_flow="row wrap", align_items=align, grid_gap="4px 14px")
    return w.HBox(children, layout=layout)


class Panel(w.VBox):
    """A widget over a session's Task. `controls` has every control by its label.

    A subclass overrides four methods. `build` returns its rows. `fill` sets its controls for a new
    task. `show` draws. `prepare` is the long work that must be done before all can be shown.
    An error becomes one sentence in the status line, because a traceback does not help here.
    Sliders and text fields need no delay: the browser sends the next value after an answer.
    """

    title = hint = ""

    def __init__(self, dataset, model, fold):
        self.model = model
        self.task = None
        self.controls = {}
        self._quiet = False
        self._cancel = threading.Event()
        self._thread = None
        # Dataset, folds and fold that are shown; a failed opening goes back to them.
        self._open = (None, [NO_FOLD], 0)
        self._build_head(str(dataset), fold)
        with self.quiet():
            self.body = w.VBox(self.build(), layout=w.Layout(display="none"))
        head = w.HTML(f"<style>{STYLE}</style><h3>{self.title}</h3><p class=quiet>{self.hint}</p>")
        top = row(self.dataset, self.fold, self.stop_button, self.bar, self.status)
        super().__init__([head, top, self.body, row(self.note, Keys())])
        self.add_class("palmkit")
        _panels.add(self)
        self.reopen()

    def _build_head(self, dataset: str, fold) -> None:
        folders = dict.fromkeys([*list_datasets(), dataset])
        options = [(Path(folder).name, folder) for folder in folders]
        self.dataset = self.control(w.Dropdown(options=options, value=dataset), "Dataset")
        self.fold = self.control(w.Dropdown(options=[("–", fold or 0)]), "Fold")
        self.stop_button = self.control(w.Button(icon="stop", disabled=True), "Stop")
        self.bar = w.FloatProgress(max=1.0, layout=w.Layout(width="160px", height="18px"))
        self.status = w.HTML()
        self.note = w.HTML()
        self.on(self.dataset, self.choose_dataset)
        self.on(self.fold, self.reopen)
        self.stop_button.on_click(lambda _: self.stop())

    def __repr__(self):
        return f"{self.title}: run this cell in JupyterLab to use the widget"

    def build(self) -> list:
        raise NotImplementedError

    def fill(self) -> None: ...

    def show(self) -> None: ...

    def prepare(self, on_progress) -> str | None: ...

    def busy(self, working: bool) -> None:
        """Enable and disable buttons. It is called before and after long work."""
        self.stop_button.disabled = not working
        self.bar.layout.display = "" if working else "none"

    # Controls

    def control(self, widget, label: str, width="auto", do=None):
        """Label a control. `do` is called when its value changes or when it is pressed."""
        widget.description = label
        widget.layout.width = width
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
        """Replace the options of a choice, and select `value`, or the first option without one."""
        with self.quiet():
            control.options = options
            if value is ...:
                first = control.options[0] if control.options else None
                value = first[1] if isinstance(first, tuple) else first
            control.value = value

    def guard(self, do, *arguments) -> None:
        try:
            if self.stop_button.disabled:  # else the status line belongs to the work in progress
                self.say("")
            do(*arguments)
        except Exception as error:  # of any kind: nobody sees a traceback of a callback
            self.say(error)

    @contextlib.contextmanager
    def quiet(self):
        """Values that are set inside trigger no callback."""
        before = self._quiet
        self._quiet = True
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
        """Run job(on_progress) in a thread and stop the job before it.

        The status line shows what the job returns.
        """
        self._cancel.set()
        cancel = self._cancel = threading.Event()

        def on_progress(done=0, total=0, text=""):
            if cancel.is_set():
                raise Stopped
            self.bar.value = done / total if total else 0
            self.say(f"{text}: {done} of {total}" if total else text and f"{text} ...")

        def run():
            try:
                end = job(on_progress) or ""
            except Stopped:
                end = "stopped"
            except Exception as error:
                end = error
            if cancel is self._cancel:  # else the status line belongs to a newer job
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
        """Wait until no work is in progress."""
        self._thread.join(timeout)

    # Datasets

    def choose_dataset(self) -> None:
        self.choose(self.fold, [NO_FOLD])
        self.reopen()

    def go_back(self) -> None:
        """After a failed opening: show what was open before."""
        if self.body.layout.display == "none":
            with self.quiet():
                self.dataset.value, self.fold.options, self.fold.value = self._open
            self.fold.disabled = len(self.fold.options) < 2
            self.body.layout.display = "" if self.task else "none"

    def reopen(self) -> None:
        self.body.layout.display = "none"  # until it shows the new dataset alone
        dataset = self.dataset.value
        fold = self.fold.value or None

        def job(on_progress):
            task = open_task(dataset, self.model, fold, on_progress)
            numbers = list_folds(dataset)
            folds = [NO_FOLD if n is None else (str(n), n or 0) for n in numbers]
            on_progress()
            self._show_task(task, dataset, folds)
            return self.prepare(on_progress)

        self.work(job)

    def _show_task(self, task, dataset, folds) -> None:
        fold = task.data.fold or 0
        self.choose(self.fold, folds, fold)
        self.fold.disabled = len(folds) < 2
        self.task = task
        self._open = (dataset, folds, fold)
        with self.quiet():
            self.fill()
        self.show()
        self.body.layout.display = ""
        self.note.value = quiet(task.model.note)
        freeze_objects()


@functools.cache  # once in a process
def freeze_objects() -> None:
    """Take PyTorch's many objects out of garbage collection.

    Otherwise the collector walks through them in every tenth answer, for 0.4 s.
    """
    gc.collect()
    gc.freeze()


@atexit.register
def _stop_all() -> None:
    for panel in list(_panels):  # a thread inside of torch must not outlive the interpreter
        panel.stop()
        panel.wait(2)
