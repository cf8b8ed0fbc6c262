"""The sources of the site in one folder: copies of the project's pages, and the generated ones."""

from __future__ import annotations

import shutil
from pathlib import Path

from docs_site.gallery import write_gallery
from docs_site.reference import write_reference

ROOT = Path(__file__).resolve().parents[2]
# Pages of the top level beside the README, and files that pages link to.
TOP = ("CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE")
CARDS = ("palmkit/mini/MODEL_CARD.md", "palmkit/mini_clap/MODEL_CARD.md")
# All of these folders, whatever is added to them.
FOLDERS = {"docs": ("*.md", "*.png"), "notebooks": ("**/*.ipynb",)}


def list_sources(root: Path = ROOT) -> list[Path]:
    """The files of the project that the site has, relative to it."""
    found = [root / name for name in (*TOP, *CARDS)]
    for folder, patterns in FOLDERS.items():
        found += [path for pattern in patterns for path in sorted((root / folder).glob(pattern))]
    return [path.relative_to(root) for path in found if ".ipynb_checkpoints" not in path.parts]


def toctree(caption: str, pages: list[str]) -> list[str]:
    return ["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""]


def title_of(path: Path) -> str:
    return path.read_text().partition("\n")[0].removeprefix("# ")


def home_page(root: Path = ROOT) -> str:
    """The README and the navigation. Guides are all pages of docs/, by title."""
    guides = sorted((root / "docs").glob("*.md"), key=lambda path: title_of(path).lower())
    lines = [(root / "README.md").read_text(), ""]
    lines += toctree("Notebooks", ["Gallery <gallery>"])
    lines += toctree("Guides", [f"docs/{path.stem}" for path in guides])
    lines += toctree("Reference", ["reference/index"])
    cards = [card.removesuffix(".md") for card in CARDS]
    lines += toctree("Project", [*cards, "Changes <CHANGELOG>", "CONTRIBUTING"])
    return "\n".join(lines)


def stage_site(stage: Path) -> None:
    """Write all sources of the site to a fresh folder."""
    shutil.rmtree(stage, ignore_errors=True)
    for name in list_sources():
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, stage / name)
    (stage / "index.md").write_text(home_page())
    write_gallery(stage)
    write_reference(stage / "reference")
