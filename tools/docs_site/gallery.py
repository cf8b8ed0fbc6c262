"""The gallery: each notebook as a card with its title, its question and one of its figures."""

from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
from PIL import Image, ImageChops, ImageOps

WIDTH, HEIGHT, MARGIN = 640, 400, 16  # of a thumbnail, in pixels
INTRODUCTION = (
    "The pages with their committed outputs, which are of *mini-PENGI*, not of PENGI. To run them:",
    "`palmkit notebooks --copy-to DIR`, or `make lab` in a checkout.",
)
QUESTION = re.compile(r"\*\*Question\.\*\*\s*(.+)")
LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")


@dataclass(frozen=True)
class Card:
    """A notebook: path below notebooks/ without the suffix, title, question, one of its figures."""

    name: str
    title: str
    question: str
    figure: Image.Image

    @property
    def short_title(self) -> str:
        """For the navigation."""
        return self.title.partition(":")[0]


def list_notebooks(folder: Path) -> list[Path]:
    """The series in order, the explorer, the appendix."""
    paths = [path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts]
    return sorted(paths, key=lambda path: (path.parent != folder, not path.name[0].isdigit(), path))


def figures(book) -> list[Image.Image]:
    """The PNG outputs of a notebook."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    data = [output.get("data", {}).get("image/png") for output in outputs]
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in data if one]


def read_card(path: Path, folder: Path) -> Card:
    """Raises ValueError for a notebook without a title, a question or a figure."""
    book = nbformat.read(path, as_version=4)
    text = book.cells[0].source
    title = re.match(r"# (.+)", text)
    question = QUESTION.search(text)
    found = figures(book)
    if not (title and question and found):
        raise ValueError(f"{path.name} has no title, no question or no figure for the gallery")
    name = path.relative_to(folder).with_suffix("").as_posix()
    figure = choose_figure([trim(one) for one in found])
    return Card(name, title[1], LINK.sub(r"\1", question[1]), figure)


def trim(figure: Image.Image) -> Image.Image:
    """A figure on white, without its white margin."""
    flat = Image.new("RGB", figure.size, "white")
    flat.paste(figure, mask=figure.convert("RGBA").getchannel("A"))
    box = ImageChops.difference(flat, Image.new("RGB", flat.size, "white")).getbbox()
    return flat.crop(box) if box else flat


def choose_figure(found: list[Image.Image]) -> Image.Image:
    """The figure whose shape is nearest to that of a thumbnail."""
    return min(found, key=lambda one: abs(math.log(one.width / one.height * HEIGHT / WIDTH)))


def thumbnail(figure: Image.Image) -> Image.Image:
    """The figure, whole, on a white ground of WIDTH x HEIGHT."""
    inner = ImageOps.contain(figure, (WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN))
    ground = Image.new("RGB", (WIDTH, HEIGHT), "white")
    ground.paste(inner, ((WIDTH - inner.width) // 2, (HEIGHT - inner.height) // 2))
    return ground


def gallery_page(cards: list[Card]) -> str:
    """The cards as a grid of sphinx-design, in Markdown."""
    lines = ["# Notebooks", "", *INTRODUCTION, "", "::::{grid} 1 2 2 3", ":gutter: 3", ""]
    for card in cards:
        lines += [
            f":::{{grid-item-card}} {card.title}",
            f":img-top: thumbnails/{card.name}.png",
            f":link: notebooks/{card.name}",
            ":link-type: doc",
            "",
            card.question,
            ":::",
            "",
        ]
    toctree = [f"{card.short_title} <notebooks/{card.name}>" for card in cards]
    return "\n".join([*lines, "::::", "", "```{toctree}", ":hidden:", "", *toctree, "```", ""])


def write_gallery(stage: Path) -> None:
    """Write gallery.md and its thumbnails beside the notebooks that stand in `stage`."""
    cards = [read_card(path, stage / "notebooks") for path in list_notebooks(stage / "notebooks")]
    for card in cards:
        target = stage / "thumbnails" / f"{card.name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        thumbnail(card.figure).save(target, optimize=True)
    (stage / "gallery.md").write_text(gallery_page(cards))
