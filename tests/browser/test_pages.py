"""The pages in a real Chromium: hostile texts are shown and not run, and nothing is wider than the window."""

import html
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.reviewing.findings import Review
from flows.reviewing.page import render as render_review
from flows.reviewing.verdict import verdict_of
from stages.clean.page import render as render_data
from stages.evaluate.page import render as render_evaluation
from tests.unit import test_data_page, test_evaluation_page
from tests.unit.small_review import foreign_review

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
RUN = "document.title='taken over'"
HOSTILE = (
    f'<script>{RUN}</script><img src=x onerror="{RUN}"><svg onload="{RUN}"></svg>'
    f"</style></bdi><iframe srcdoc='<script>parent.{RUN}</script>'></iframe>{{{{ 7 * 7 }}}} \u202egnp.exe\u2066 \x00"
)


def review_page(review: Review) -> str:
    return render_review(review, verdict_of(review), markdown=False)


PAGES: dict[str, Callable[[str], str]] = {
    "data": lambda text: render_data(test_data_page.page_of(text)),
    "evaluation": lambda text: render_evaluation(**test_evaluation_page.page_of(text)),
    "review": lambda text: review_page(foreign_review(text, labels=25)),
}


def chromium(address: str, profile: Path, size: str = "1400,1000", milliseconds: int = 2000) -> str:
    """Open a page, and return its elements after all that runs has run for so long."""
    options = [f"--virtual-time-budget={milliseconds}", f"--window-size={size}", f"--user-data-dir={profile}"]
    command = [str(CHROMIUM), *OPTIONS, *options, "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout


@pytest.mark.parametrize("name", PAGES)
def test_a_hostile_text_is_shown_and_not_run(name: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(PAGES[name](HOSTILE), encoding="utf-8")
    seen = chromium(page.as_uri(), tmp_path / "profile")
    assert "<title>The" in seen
    assert "<title>taken over" not in seen
    assert "<script" not in seen
    assert "<iframe" not in seen
    assert seen.count(html.escape("<script>document", quote=False)) > 10


def test_a_text_that_is_not_escaped_would_be_run_here(tmp_path: Path) -> None:
    """The browser and its options do run scripts: the test above can fail."""
    page = tmp_path / "page.html"
    page.write_text(f"<title>calm</title>{HOSTILE}", encoding="utf-8")
    assert "<title>taken over" in chromium(page.as_uri(), tmp_path / "profile")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_the_window(name: str, width: int, tmp_path: Path) -> None:
    """The page in a frame of this width, which a script around it measures."""
    inner = html.escape(PAGES[name]("a long-winded film " * 12 + "x" * 300))
    measure = (
        "onload = () => {const seen = document.querySelector('iframe').contentDocument.documentElement;"
        "document.title = seen.scrollWidth + ' of ' + seen.clientWidth + ' high ' + seen.scrollHeight}"
    )
    page = tmp_path / "frame.html"
    page.write_text(
        f"<!DOCTYPE html><title></title><script>{measure}</script>"
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{inner}"></iframe>',
        encoding="utf-8",
    )
    title = chromium(page.as_uri(), tmp_path / "profile").partition("<title>")[2].partition("</title>")[0]
    measured, _, window = title.partition(" of ")
    window, _, height = window.partition(" high ")
    assert int(height) > 1000, title
    assert int(measured) <= int(window), title
    assert width - 20 <= int(window) <= width
