"""The coordinator's web server: health, /metrics and one live overview page. Plain HTTP, on loopback only.

    pages      the overview and its stream
    live       one look at the store, shared by all who watch
    rows       what a look sees, capped
    metrics    what Prometheus scrapes
    guard      loopback names only, and the headers of every answer
    server     binding, health, start and stop

Reads the store and the links; changes nothing. Called by `app`.
"""

from __future__ import annotations

from .server import serve_web

__all__ = ["serve_web"]
