# pyright: standard
"""The site in a real Chromium: its search finds, its figures take the page's colours, nothing is asked of others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ..e2e.chromium import MISSING, Watched, chromium
from .test_site import build

pytestmark = [pytest.mark.nightly, MISSING]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = build(tmp_path_factory.mktemp("site"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    serving.join()


def test_words_are_found_and_nobody_else_is_asked(web: str) -> None:
    with chromium() as browser:
        seen = Watched(browser.new_page())
        seen.page.goto(web)
        seen.page.fill("input[name=query]", "escrow")
        seen.wait_for("document.querySelectorAll('.md-search-result__item').length > 3")
        seen.check_quiet(web)
        assert "escrow" in seen.page.inner_text(".md-search-result__list").lower()


@pytest.mark.parametrize("width", [1280, 390])
def test_figures_take_the_colours_of_the_page_and_fit(web: str, width: int) -> None:
    ink = "getComputedStyle(document.querySelector('figure.drawn svg text')).fill"
    with chromium() as browser:
        inks: list[str] = []
        for scheme in ("light", "dark"):
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
            page = context.new_page()
            page.goto(f"{web}/concepts/money/")
            inks.append(page.evaluate(ink))
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            context.close()
    assert inks == ["rgb(36, 41, 47)", "rgb(230, 237, 243)"]
