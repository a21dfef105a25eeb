# pyright: standard
"""Somebody with a browser of their own, desktop or phone, on the annotator's page."""

from __future__ import annotations

from typing import Any

from .chromium import Watched
from .fake_people import FakePeople

DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
SIZES = {"desktop": DESKTOP, "phone": PHONE}
HERE = "#000000000001/people"
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"


class Visit:
    """Somebody with a browser of their own at the stand-in."""

    def __init__(self, browser: Any, fake: FakePeople, web: str, size: str = "desktop", **settings: Any) -> None:
        self.fake, self.web = fake, web
        shape: Any = SIZES[size]
        self.context = browser.new_context(**shape, **settings)
        self.context.set_default_timeout(15_000)
        self.seen = Watched(self.context.new_page())
        self.page = self.seen.page

    def joins(self, name: str = "Mira") -> Visit:
        """Through the form, to the introduction of the one task."""
        self.page.goto(f"{self.web}/people{HERE}")
        self.page.fill("#join [name=name]", name)
        self.page.click("#join button")
        self.page.wait_for_selector(".begin a")
        return self

    def begins(self) -> Visit:
        self.joins()
        self.page.click(".begin a")
        self.page.wait_for_selector(".item")
        return self

    def waits_for(self, number: int) -> None:
        self.page.wait_for_selector(f".item[data-lease=lease-{number}] .bar:not([data-early]):not([aria-busy=true])")

    def presses(self, key: str, *, at: int) -> None:
        """As soon as this item may be answered."""
        self.waits_for(at)
        self.page.keyboard.press(key)

    def panel(self) -> str:
        self.page.wait_for_selector(".panel")
        return str(self.page.inner_text("main"))

    def swipes(self, to: str, *, at: int) -> None:
        self.waits_for(at)
        self.draws(to)

    def draws(self, to: str) -> None:
        """With a finger, across the first answer."""
        box = self.page.locator(".answer .text").first.bounding_box()
        x, y, by = box["x"] + box["width"] / 2, box["y"] + 12, 40 if to == "right" else -40
        line = self.context.new_cdp_session(self.page)
        for kind, step in (("touchStart", 0), *(("touchMove", step) for step in range(1, 4)), ("touchEnd", None)):
            points = [] if step is None else [{"x": x + step * by, "y": y}]
            line.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def keeps_quiet(self) -> None:
        self.seen.check_quiet(self.web)
