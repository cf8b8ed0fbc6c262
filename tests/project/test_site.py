"""The static site: what is on it, the check of its links, and a build of a small one."""

import importlib.metadata
import shutil
import subprocess

import nbformat
import pytest
from build_site import run_sphinx
from docs_site.docstrings import convert, read_comments
from docs_site.gallery import HEIGHT, WIDTH, gallery_page, list_notebooks, read_card, thumbnail
from docs_site.links import check_site
from docs_site.names import ROOT, public_names
from docs_site.pages import home_page, list_sources, title_of
from docs_site.reference import command_page, method_table

import palmkit
from palmkit.methods import METHODS


def installed(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


needs_sphinx = pytest.mark.skipif(
    not all(map(installed, ("sphinx", "furo", "myst-nb", "sphinx-mathjax-offline"))),
    reason="Sphinx is not installed; `make site` installs it",
)


# What is on it


def test_a_new_page_of_docs_needs_no_other_change(tmp_path):
    for name in ("README.md", "docs"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    (tmp_path / "docs" / "another.md").write_text("# A page that nobody knew of\n")
    lines = home_page(tmp_path).splitlines()
    pages = {f"docs/{path.stem}" for path in (tmp_path / "docs").glob("*.md")}
    assert "docs/another" in pages
    assert pages == {line for line in lines if line.startswith("docs/")}


def test_every_page_and_every_notebook_is_a_source():
    sources = set(list_sources())
    for folder, pattern in (("docs", "*.md"), ("notebooks", "**/*.ipynb")):
        files = [x for x in (ROOT / folder).glob(pattern) if ".ipynb_checkpoints" not in x.parts]
        assert files and {path.relative_to(ROOT) for path in files} <= sources
    assert all(title_of(path) for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.slow
def test_every_notebook_has_a_card_with_a_figure():
    folder = ROOT / "notebooks"
    paths = list_notebooks(folder)
    assert [path.name[:2] for path in paths[:3]] == ["00", "01", "02"]
    assert [path.name[:2] for path in paths[-3:]] == ["ex", "A1", "A2"]
    cards = [read_card(path, folder) for path in paths]
    page = gallery_page(cards)
    for card in cards:
        assert f":link: notebooks/{card.name}\n" in page
        assert f"{card.short_title} <notebooks/{card.name}>" in page
        picture = thumbnail(card.figure)
        assert picture.size == (WIDTH, HEIGHT) and len(picture.getcolors(WIDTH * HEIGHT)) > 10


def test_a_notebook_without_a_figure_is_named(tmp_path):
    cells = [nbformat.v4.new_markdown_cell("# A page\n\n**Question.** Which?")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "20_new.ipynb")
    with pytest.raises(ValueError, match="20_new.ipynb has no"):
        read_card(tmp_path / "20_new.ipynb", tmp_path)


# The reference


@pytest.fixture(scope="module")
def names():
    return public_names()


def find(path: str):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_every_export_and_every_method_is_in_the_reference(names):
    things = [find(path) for paths in names.values() for path in paths]
    assert len(things) == len(set(map(id, things))), "each once"
    exported = [getattr(palmkit, name) for name in palmkit.__all__]
    missing = [one for one in exported if callable(one) and one not in things]
    assert missing == []
    assert [name for name, cls in METHODS.items() if cls not in things] == []
    assert (
        "palmkit.PALM" in names["palmkit"]
        and "palmkit.published.rival_means" in names["palmkit.published"]
    )
    table = "\n".join(method_table())
    assert [name for name in METHODS if f"``{name}``" not in table] == []


def test_every_name_of_the_reference_has_a_docstring(names):
    paths = [path for paths in names.values() for path in paths]
    assert [path for path in paths if not (find(path).__doc__ or "").strip()] == []


@pytest.mark.slow
def test_the_help_of_every_command_is_there():
    page = command_page()
    for command in ("run", "notebooks", "status", "check-model", "import", "doctor", "lab"):
        assert f"palmkit {command}\n---" in page and f"usage: palmkit {command} " in page
    assert page.count("\n   usage: palmkit ") == page.count("\npalmkit ") + 1


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("f'_i is a *name*, lambda_ | z.", ["f'\\_i is a \\*name\\*, lambda\\_ \\| z."]),
        ("See `fit` now.", ["See \\ ``fit``\\  now."]),
        (
            "Text:\n\n    f(x) = a*b\n    g_",
            ["Text:", "", ".. code-block:: none", "", "   f(x) = a*b", "   g_"],
        ),
        (
            "shots: clips of a class; all\n    if -1.\nbeta, lam: of the kernel. seed: of it",
            [
                "- **shots**: clips of a class; all if -1.",
                "",
                "- **beta, lam**: of the kernel.",
                "",
                "- **seed**: of it",
            ],
        ),
        (
            "It may have:\n    padding: of short clips;\n    channels: of stereo files.",
            ["It may have:", "", "- **padding**: of short clips;", "",
             "- **channels**: of stereo files."],
        ),
        ("init: where it starts.\nThen text.", ["- **init**: where it starts.", "", "Then text."]),
        ("Of two lines, the second\nnames: none.", ["Of two lines, the second names: none."]),
    ],
)  # fmt: skip
def test_a_docstring_of_plain_text(text, lines):
    assert "\n".join(convert(text.splitlines())).strip().splitlines() == lines


def test_comments_of_attributes_have_units():
    source = (
        "class A:\n    rate: int  # in Hz\n    # True: it learns\n    # something.\n    on = 1\n"
    )
    source += "    bare = 2\n    _private: int  # no\n"
    assert read_comments(source) == {
        "rate": ("int", "in Hz"),
        "on": ("", "True: it learns something."),
    }


# Links


def write_site(folder, body: str, css: str = "") -> None:
    page = '<html><head><link rel="stylesheet" href="a.css"></head><body>{}</body></html>'
    (folder / "b").mkdir()
    (folder / "index.html").write_text(page.format(body))
    (folder / "b" / "other.html").write_text('<h2 id="here">x</h2><a href="../index.html">y</a>')
    (folder / "a.css").write_text(css)


GOOD = '<a href="b/other.html#here">1</a><a id="top"></a><a href="#top">2</a><a href="#">3</a>' \
       '<a href="https://arxiv.org/abs/1">4</a><img src="data:image/png;base64,aa">'  # fmt: skip


def test_a_good_site_has_no_fault(tmp_path):
    write_site(tmp_path, GOOD)
    assert check_site(tmp_path) == ([], ["https://arxiv.org/abs/1"])


@pytest.mark.parametrize(
    ("body", "css", "fault"),
    [
        ('<a href="b/missing.html">x</a>', "", "index.html: b/missing.html: there is no such file"),
        ('<a href="b/other.html#there">x</a>', "", "other.html#there: the page has no such anchor"),
        ('<a href="#nowhere">x</a>', "", "#nowhere: the page has no such anchor"),
        ('<img src="b/no.png">', "", "b/no.png: there is no such file"),
        ('<script src="https://cdn.net/x.js"></script>', "", "x.js: loaded from the network"),
        ('<script src="//cdn.net/x.js"></script>', "", "x.js: loaded from the network"),
        ('<link rel="stylesheet" href="https://c.net/y.css">', "", "y.css: loaded"),
        ('<style>@import "https://c.net/z.css";</style>', "", "z.css: loaded from the network"),
        ("", "@font-face { src: url(https://c.net/f.woff2) }", "a.css: https://c.net/f.woff2"),
    ],
)  # fmt: skip
def test_a_fault_of_a_site_is_named(tmp_path, body, css, fault):
    write_site(tmp_path, GOOD + body, css)
    (found,) = check_site(tmp_path)[0]
    assert fault in found


# The build


def build_small(folder, text: str):
    """A site of one page and one notebook of the series."""
    (folder / "stage").mkdir()
    shutil.copy(ROOT / "notebooks" / "04_palm.ipynb", folder / "stage" / "page.ipynb")
    book = nbformat.read(folder / "stage" / "page.ipynb", as_version=4)
    for cell in book.cells:  # its links lead to pages that are not here
        cell.source = (
            cell.source.replace(".ipynb)", ".ipynb)") if cell.cell_type == "code" else "$z$"
        )
    book.cells[0].source = "# A page\n\n$$\\lVert z \\rVert$$"
    nbformat.write(book, folder / "stage" / "page.ipynb")
    toctree = "```{toctree}\npage\n```\n"
    (folder / "stage" / "index.md").write_text(f"# Home\n\n{text}\n\n{toctree}")
    run_sphinx(folder / "stage", folder / "site")
    return folder / "site"


@needs_sphinx
@pytest.mark.slow
def test_a_small_site_loads_nothing_from_the_network(tmp_path):
    site = build_small(tmp_path, "See [there](page.ipynb).")
    assert check_site(site)[0] == []
    page = (site / "page.html").read_text()
    assert 'src="_static/tex-svg.js' in page and (site / "_static" / "tex-svg.js").is_file()
    assert "data:audio" in page or "<img" in page, "the committed outputs"


@needs_sphinx
@pytest.mark.slow
@pytest.mark.parametrize("text", ["[there](missing.md)", "[there](page.ipynb#no-such-part)"])
def test_a_broken_link_ends_the_build(tmp_path, text, capfd):
    with pytest.raises(subprocess.CalledProcessError):
        build_small(tmp_path, text)
    assert "WARNING" in capfd.readouterr().err
