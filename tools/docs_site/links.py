"""The check of a built site: its links and anchors, and that it loads nothing from the network."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a page loads by itself when it is opened.
LOADS = {"img": "src", "script": "src", "iframe": "src", "audio": "src", "video": "src",
         "source": "src", "embed": "src", "object": "data", "image": "href"}  # fmt: skip
RELATIONS = {"stylesheet", "icon", "shortcut", "preload", "prefetch", "modulepreload"}
CSS_URL = re.compile(r"""(?:url\(|@import)\s*['"]?\s*((?:https?:)?//[^'")\s]+)""")


@dataclass
class Page(HTMLParser):
    """Anchors, links and loaded files of an HTML page."""

    anchors: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    loads: set[str] = field(default_factory=set)
    in_style: bool = False

    def __post_init__(self):
        super().__init__()

    def __hash__(self):
        return id(self)

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag in LOADS and values.get(LOADS[tag]):
            self.loads.add(values[LOADS[tag]])
        if tag == "link" and RELATIONS & set(values.get("rel", "").lower().split()):
            self.loads.add(values.get("href", ""))
        elif tag in ("a", "area", "link") and values.get("href"):
            self.links.add(values["href"])
        self.loads |= set(CSS_URL.findall(values.get("style", "")))
        self.in_style = tag == "style"

    def handle_data(self, data):
        if self.in_style:
            self.loads |= set(CSS_URL.findall(data))

    def handle_endtag(self, tag):
        self.in_style = False


def read_page(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text())
    return page


def is_external(address: str) -> bool:
    """Whether an address leaves the folder: it has a scheme or a host."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https", "mailto", "ftp")


def check_address(address: str, path: Path, pages: dict[Path, Page]) -> str:
    """What is wrong with an internal link of the page `path`, or ""."""
    parts = urlsplit(address)
    if parts.scheme in ("data", "javascript"):
        return ""
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return f"{address}: there is no such file"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return f"{address}: the page has no such anchor"
    return ""


def check_site(site: Path) -> tuple[list[str], list[str]]:
    """(faults, external links) of all pages below a folder, each "page: what"."""
    site = site.resolve()
    pages = {path: read_page(path) for path in sorted(site.rglob("*.html"))}
    faults, external = [], set()
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        for address in sorted(page.links | page.loads):
            if is_external(address):
                external.add(address)
                if address in page.loads:
                    faults.append(f"{name}: {address}: loaded from the network")
            elif fault := check_address(address, path, pages):
                faults.append(f"{name}: {fault}")
    for path in sorted(site.rglob("*.css")):
        name = path.relative_to(site).as_posix()
        found = CSS_URL.findall(path.read_text())
        faults += [f"{name}: {address}: loaded from the network" for address in found]
    return faults, sorted(external)
