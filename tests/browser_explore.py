"""What a person sees: JupyterLab in a real browser opens `explore.ipynb`, runs all, and every widget is used by mouse and
keyboard. Run by `make browser`; needs chromium with chromedriver, and selenium. Nothing is written to the checkout but,
with PALMKIT_PICTURES=1, the pictures in `docs`.
"""

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs"
TITLES = ("Listen", "Prompt bench", "Few-shot bench", "Lambda", "Map", "Errors")

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: `make browser` installs it")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
if not CHROMIUM or not DRIVER:
    pytest.skip("there is no chromium with chromedriver (Debian: apt install chromium-driver)", allow_module_level=True)

from selenium.webdriver import ActionChains, Keys  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a JupyterLab of its own, over a copy of the notebooks."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "HOME",
               "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")  # fmt: skip
    env = os.environ | {name: str(home / name.lower()) for name in folders} | {"PALMKIT_PROGRESS": "0"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    env.pop("MPLBACKEND", None)
    (home / "home").mkdir()
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--IdentityProvider.token=look", f"--ServerApp.root_dir={home / 'notebooks'}", "--LabApp.news_url=",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]  # fmt: skip
    with open(home / "log", "w") as log, subprocess.Popen(command, env=env, stdout=log, stderr=log) as lab:
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{address}/api?token=look", timeout=5).close()
                    break
                except OSError:
                    assert lab.poll() is None, (home / "log").read_text()[-2000:]
                    time.sleep(0.1)
            yield f"{address}/lab/tree/explore.ipynb?token=look"
        finally:
            lab.terminate()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("chromium")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
                 "disable-background-networking", "disable-component-update", "window-size=1500,1300",
                 "force-color-profile=srgb", "mute-audio", "use-fake-device-for-media-stream",
                 "use-fake-ui-for-media-stream", f"user-data-dir={profile}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class Page:
    """The notebook in the browser, as its reader uses it."""

    def __init__(self, browser):
        self.browser = browser

    def until(self, what, seconds=60, told=""):
        return WebDriverWait(self.browser, seconds, 0.05, [Exception]).until(lambda _: what(), told)

    def bench(self, title):
        found = self.browser.find_element(By.XPATH, f"//div[contains(@class,'palmkit')][.//h3[text()='{title}']]")
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'start'})", found)
        return found

    def control(self, bench, label):
        """By what a person reads on it or beside it."""
        label = f"normalize-space()='{label}'"
        here = f".//button[{label}] | .//label[{label}]/following-sibling::*[1] | .//label[.//*[{label}] or {label}]//input"
        return bench.find_element(By.XPATH, here)

    def field(self, bench, label):
        found = self.control(bench, label)
        return found if found.tag_name in ("select", "input") else found.find_element(By.CSS_SELECTOR, "input, select, [tabindex]")

    def pick(self, bench, label, option):
        Select(self.field(bench, label)).select_by_visible_text(option)

    def options(self, bench, label):
        return [option.text for option in Select(self.field(bench, label)).options]

    def changed(self, view, do, seconds=20):
        """Do something, and wait for what is seen to change; the new content."""
        before = view()
        do()
        self.until(lambda: view() != before, seconds, f"nothing changed: {before[:200]}")
        return view()


@pytest.fixture(scope="module")
def page(server, browser):
    page = Page(browser)
    browser.get(server)
    page.until(lambda: browser.find_element(By.CSS_SELECTOR, ".jp-Notebook .jp-Cell"))
    page.until(lambda: "Idle" in browser.find_element(By.CSS_SELECTOR, ".jp-Notebook-ExecutionIndicator").get_attribute("data-status").title())
    browser.find_element(By.XPATH, "//div[contains(@class,'lm-MenuBar-itemLabel')][text()='Run']").click()
    page.until(lambda: browser.find_element(By.XPATH, "//li[@data-command='runmenu:run-all']")).click()
    return page


def read(element, css=".widget-html-content, output"):
    """All words of a bench, as they are on the page."""
    return " | ".join(part.get_attribute("textContent") for part in element.find_elements(By.CSS_SELECTOR, css))
