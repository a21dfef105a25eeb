"""The coordinator's web server: dashboard, public page, health and /metrics. TLS everywhere but on loopback.

    dashboard  the operator's pages, behind a login
    live       one look at the store, shared by all who watch the overview
    rows       what a look sees, capped
    metrics    what Prometheus scrapes
    guard      which names it answers to, and the headers of every answer
    binding    address, how many are let in there, and TLS
    connection which silence ends a connection
    server     health, start and stop

Called by `app`.
"""

from __future__ import annotations

from .server import Site, WebAddress, serve_web

__all__ = ["Site", "WebAddress", "serve_web"]
