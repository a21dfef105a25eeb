"""Tracing: whose trace a call belongs to, as the metadata that tells the coordinator.

Shardwork's client and worker make no spans. A program that uses them may: then its open span goes along, so that what
the coordinator does for the call appears under it. OpenTelemetry is never imported for this. Called by `session`.
"""

from __future__ import annotations

import sys


def context() -> tuple[tuple[str, str], ...]:
    """W3C `traceparent` of the span that is open here; empty in a program that traces nothing."""
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return tuple(carrier.items())
