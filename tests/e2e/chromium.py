# pyright: standard
"""A real Chromium for tests of pages: where it is, how it is started, and what a page is watched for.

Playwright and a chromium binary are not among what the tests need; without them these are skipped with the reason.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Collection, Generator
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PASSWORD = "four words of no sense"

MISSING = pytest.mark.skipif(CHROMIUM is None, reason="no chromium binary on this machine")


class Watched:
    """A page whose console, requests and policy violations are noted."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.noise: list[str] = []
        self.requests: set[str] = set()
        page.on("console", lambda said: self.noise.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: self.noise.append(f"error: {error}"))
        page.on("request", lambda request: self.requests.add(request.url))

    def wait_for(self, script: str, timeout_s: float = 30.0) -> None:
        """Until the expression is true in the page. Polled from here: the page's policy forbids eval."""
        end = time.monotonic() + timeout_s
        while not self.page.evaluate(script):
            assert time.monotonic() < end, f"never true: {script}; {self.page.inner_text('body')}"
            self.page.wait_for_timeout(100)

    def check_quiet(self, web: str) -> None:
        """Nothing was said on the console, and nothing fetched from elsewhere."""
        assert self.noise == [], self.noise
        assert {url.split("/")[2] for url in self.requests} == {web.split("/")[2]}, self.requests


@contextlib.contextmanager
def chromium() -> Generator[Any, None, None]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        opened.close()


def first_operator(browser: Any, setup: str) -> Any:
    """Makes the first user as a person would; the state of a browser that is signed in."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(setup)
    page.fill("input[name=name]", "ada")
    page.fill("input[name=password]", PASSWORD)
    page.click("main button")
    page.wait_for_url("**/overview")
    state = context.storage_state()
    context.close()
    return state


def check_axe(page: Any, impacts: Collection[str] = ("serious", "critical")) -> None:
    """No finding that axe calls one of these."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    # the page's own policy forbids inline scripts; a script of the debugger is none
    found = axe.Axe().run(page).response["violations"]
    serious = [(one["id"], [node["target"] for node in one["nodes"]][:5]) for one in found if one["impact"] in impacts]
    assert serious == [], serious
