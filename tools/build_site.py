"""Build the static site: `make site` writes it to build/site, to be opened as a file.

Warnings of Sphinx are errors. Then all links between pages are checked, and that no page loads
anything from the network. External links are listed in build/external-links.txt, and not followed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from docs_site.links import check_site
from docs_site.pages import stage_site

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"


def run_sphinx(stage: Path, site: Path) -> None:
    """Build the pages of `stage` into a fresh folder. Raises CalledProcessError for a warning."""
    shutil.rmtree(site, ignore_errors=True)
    options = ["-b", "html", "-E", "-q", "-W", "--keep-going", "-d", stage.with_name("doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, "-c", TOOLS / "docs_site", stage, site]
    subprocess.run(list(map(str, command)), check=True, cwd=TOOLS)


def main() -> int:
    stage, site = ROOT / "build" / "site-sources", ROOT / "build" / "site"
    try:
        stage_site(stage)
        run_sphinx(stage, site)
    except subprocess.CalledProcessError:
        print("The site was not built: see the warnings above.", file=sys.stderr)
        return 1
    faults, external = check_site(site)
    listing = ROOT / "build" / "external-links.txt"
    listing.write_text("".join(f"{address}\n" for address in external))
    for fault in faults:
        print(fault, file=sys.stderr)
    pages = len(list(site.rglob("*.html")))
    print(f"{pages} pages, {len(faults)} faults in links, {len(external)} external links")
    print(f"The external links are listed in {listing.relative_to(ROOT)}; none was followed.")
    print(f"Open {site / 'index.html'}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
