"""Settings of Sphinx. The site loads nothing from the network, and its pages work as files."""

import importlib.metadata
import re
from pathlib import Path

import palmkit

project = "palmkit"
author = "palmkit contributors"
version = release = palmkit.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "myst_nb",
    "docs_site.docstrings",
]
root_doc = "index"
smartquotes = False  # x' is a transpose, and --method a flag

# Markdown and notebooks
nb_execution_mode = "off"  # the committed outputs are shown
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]

# Reference
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autoclass_content = "both"
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 80

# Look
html_theme = "furo"
html_title = f"palmkit {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "default"

# Formulas: one file of MathJax, its letters included, which a package brings along.
MATHJAX = "tex-svg.js"
mathjax_path = MATHJAX
mathjax3_config = {"options": {"enableMenu": False}}


def copy_mathjax(app, error) -> None:
    """Put MathJax beside the pages."""
    files = importlib.metadata.files("sphinx-mathjax-offline") or []
    (file,) = [file.locate() for file in files if file.name == MATHJAX]
    if error is None:
        Path(app.outdir, "_static", MATHJAX).write_bytes(Path(file).read_bytes())


# Sphinx guesses this link's anchor from the module. Names are documented where users import them.
BACK = re.compile(r'<a class="viewcode-back"[^>]*>.*?</a>', re.DOTALL)


def drop_back_links(app, pagename, template, context, doctree) -> None:
    """Take the links from source code to the reference out of a page."""
    if pagename.startswith("_modules/"):
        context["body"] = BACK.sub("", context["body"])


def setup(app) -> None:
    app.connect("html-page-context", drop_back_links)
    app.connect("build-finished", copy_mathjax)
