"""HTML of the widgets: tables, pictures, marks of classes, and two views with browser code."""

from __future__ import annotations

import base64
import html
import io
import threading
from pathlib import Path

import numpy as np

from palmkit.extras import extra
from palmkit.methods import get_method

with extra("widgets"):
    import anywidget
    import seaborn as sns
    import traitlets
    from matplotlib.backends.backend_agg import FigureCanvasAgg

HERE = Path(__file__).parent
STYLE = (HERE / "style.css").read_text()
MOST_CLASSES = 60  # of a confusion table: of 1,000 it would have a million cells
SHAPES = {"circle": "●", "square": "■", "triangle": "▲", "diamond": "◆", "cross": "✚", "down": "▼"}
COLOR_WHEEL = sns.color_palette("colorblind").as_hex()
AUDIO_TYPES = {"mp3": "mpeg", "oga": "ogg", "wave": "wav"}  # where a file's suffix is not its type
_drawing = threading.Lock()  # matplotlib is not thread-safe


def escape(text) -> str:
    return html.escape(str(text))


def quiet(text) -> str:
    return f"<span class=quiet>{escape(text)}</span>"


def table(head, rows) -> str:
    """An HTML table. A cell is HTML, or a pair of HTML and its CSS class."""

    def line(cells):
        pairs = (cell if isinstance(cell, tuple) else (cell, "text") for cell in cells)
        return "".join(f"<td class={kind}>{text}</td>" for text, kind in pairs)

    head = "".join(f"<th scope=col>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{line(cells)}</tr>" for cells in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def number(value, form=".2f") -> tuple[str, str]:
    return format(value, form), "number"


def filled(text, share, color="1,115,178") -> str:
    """Text over a bar whose length is `share`, 0 to 1."""
    end = f"{100 * min(1, max(0, share)):.0f}%"
    fill = f"linear-gradient(90deg,rgba({color},.3) {end},transparent {end})"
    return f"<div class=bar style='background:{fill}'>{text}</div>"


def dot(method: str) -> str:
    cls = get_method(method)
    return f"<span style='color:{cls.color}' aria-hidden=true>■</span> {cls.label}"


def confusion_table(counts, names) -> str:
    """Rows are true classes, columns predicted ones. Darker: a larger share of the row.

    Of more than MOST_CLASSES, those with most wrong clips; a caption says so.
    """
    caption, counts = "", np.asarray(counts)
    clips = counts.sum(1)
    if len(names) > MOST_CLASSES:
        wrong = clips - counts.diagonal()
        kept = np.sort(np.argsort(-wrong, kind="stable")[:MOST_CLASSES])
        caption = f"<caption>{len(kept)} of {len(names)} classes: those with most wrong clips"
        caption += "</caption>"
        counts, clips = counts[np.ix_(kept, kept)], clips[kept]
        names = [names[n] for n in kept]
    body = ""
    for n, (name, row) in enumerate(zip(names, counts, strict=True)):
        body += f"<tr><th scope=row>{escape(name)}</th>"
        for m, count in enumerate(row):
            share = count / max(clips[n], 1)
            color = ";color:#fff" if share > 0.55 else ""
            style = f"background:rgba(1,115,178,{share:.2f}){color}"
            kind = "diagonal" if n == m else "off"
            body += f"<td class={kind} style='{style}'>{count or ''}</td>"
        body += "</tr>"
    head = "".join(f"<th scope=col><span>{escape(name)}</span></th>" for name in names)
    corner = "<th>true class, and what<br>its clips were taken for</th>"
    head = f"<thead><tr>{corner}{head}</tr></thead>"
    return f"<table class=confusion>{caption}{head}<tbody>{body}</tbody></table>"


def picture(figure, alt: str) -> str:
    """A figure as an HTML image with a text alternative."""
    with _drawing, io.BytesIO() as file:
        FigureCanvasAgg(figure).print_png(file)
        data = base64.b64encode(file.getvalue()).decode()
    return f"<img alt='{escape(alt)}' src='data:image/png;base64,{data}'>"


def player(name: str, data: bytes) -> str:
    source = f"data:audio/{audio_type(name)};base64,{base64.b64encode(data).decode()}"
    return f"<audio controls aria-label='Play {escape(name)}' src='{source}'></audio>"


def audio_type(name) -> str:
    suffix = Path(name).suffix[1:].lower()
    return AUDIO_TYPES.get(suffix, suffix or "wav")


def mark_of(label: int) -> dict:
    """Color and shape of a class. Ten colors alone are too few, and hard for some eyes."""
    return dict(color=COLOR_WHEEL[label % len(COLOR_WHEEL)], shape=[*SHAPES][label % len(SHAPES)])


def legend(names) -> str:
    marks = [(mark_of(n), name) for n, name in enumerate(names)]
    mark = "<span class=mark><span style='color:{color}'>{}</span> {}</span>".format
    return " ".join(mark(SHAPES[m["shape"]], escape(name), color=m["color"]) for m, name in marks)


class Keys(anywidget.AnyWidget):
    """Keeps plain keys for a panel's controls. JupyterLab would take them."""

    _esm = """
    function keep(event) {
      if (!event.ctrlKey && !event.metaKey && event.key !== "Escape") event.stopPropagation();
    }
    function render({ el }) {
      const panel = el.closest(".palmkit");
      panel ? panel.addEventListener("keydown", keep) : requestAnimationFrame(() => render({ el }));
    }
    export default { render };
    """


class SoundInput(anywidget.AnyWidget):
    """A recording of the user's, dropped, chosen or recorded. It goes to take(name, file bytes)."""

    _esm = HERE / "sound.js"

    def __init__(self, take):
        super().__init__()
        self.on_msg(lambda _, content, buffers: take(content["name"], bytes(buffers[0])))


class Scatter(anywidget.AnyWidget):
    """Points of `point` in two dimensions.

    on_play(clip) is called when a clip should be played, and answers by `play`.
    """

    _esm = HERE / "scatter.js"
    points = traitlets.List().tag(sync=True)
    trail = traitlets.List().tag(sync=True)
    extent = traitlets.List([0, 1, 0, 1]).tag(sync=True)  # left, right, low, high
    label = traitlets.Unicode().tag(sync=True)
    hover = traitlets.Bool(True).tag(sync=True)  # whether a point plays when the mouse is over it

    def __init__(self, on_play):
        super().__init__()
        self.on_msg(lambda _, content, __: on_play(content["clip"]))

    def play(self, clip: int, name: str, data: bytes) -> None:
        self.send(dict(clip=clip, type=f"audio/{audio_type(name)}"), [data])

    def forget(self) -> None:
        """Drop points and sounds: clip numbers mean other clips from now on."""
        self.points = []
        self.trail = []
        self.send(dict(forget=True))

    def show(self, points: list[dict], label: str, trail=()) -> None:
        x, y = zip(*[(point["x"], point["y"]) for point in points], *trail, strict=True)
        with self.hold_sync():
            self.extent = [float(end) for end in (min(x), max(x), min(y), max(y))]
            self.label = label
            self.trail = [[float(a), float(b)] for a, b in trail]
            self.points = points


def point(xy, text, *, clip=-1, name="", size=5.0, faint=False, **mark) -> dict:
    """One point. text: shown when selected; clip: number to play; name: written beside it."""
    return dict(
        x=float(xy[0]),
        y=float(xy[1]),
        text=text,
        clip=clip,
        name=name,
        size=size,
        faint=faint,
        **mark,
    )
