"""Instruments: what one coordinator process counts and times as it works; everything starts at zero with it.

Owns the names, help texts and buckets of these figures. States of jobs, money and queues are not here: those are read
from the store at scrape time, by `web.metrics`. Held by the engine; observed by the writer, the outbox, `calls` and
`lag`, from any thread.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shardwork.errors import ShardworkError, Unreachable

CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
COMMIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
PHASE_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

DONE, FAILED, WAITS = "done", "failed", "waits"


class Instruments:
    """One per coordinator."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        called = ["service", "method"]
        self.calls = Counter(
            "shardwork_rpc_requests",
            "RPCs that ended, by the status they ended with.",
            [*called, "code"],
            registry=registry,
        )
        self.call_seconds = Histogram(
            "shardwork_rpc_duration_seconds",
            "How long RPCs took; a stream ends when its worker leaves.",
            called,
            buckets=CALL_BUCKETS,
            registry=registry,
        )
        self.open_calls = Gauge(
            "shardwork_rpc_requests_in_progress",
            "RPCs that are being answered; streams of workers among them.",
            called,
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "shardwork_store_commit_duration_seconds",
            "From the beginning of a group commit until it is durable.",
            buckets=COMMIT_BUCKETS,
            registry=registry,
        )
        self.commit_works = Counter(
            "shardwork_store_works", "Changes that were committed, several in one commit.", registry=registry
        )
        self.commit_failures = Counter(
            "shardwork_store_commit_failures", "Group commits that did not happen.", registry=registry
        )
        self.phases = Counter(
            "shardwork_executor_tasks",
            "Phases that the coordinator ran itself, by how they ended; `waits`: something was out of reach.",
            ["phase", "outcome"],
            registry=registry,
        )
        self.phase_seconds = Histogram(
            "shardwork_executor_task_duration_seconds",
            "How long such a phase took, with its wait for a process.",
            ["phase"],
            buckets=PHASE_BUCKETS,
            registry=registry,
        )
        self.open_phases = Gauge(
            "shardwork_executor_tasks_in_progress", "Phases that run or wait for a process.", registry=registry
        )
        self.lag_seconds = Histogram(
            "shardwork_event_loop_lag_seconds",
            "How late the event loop woke a sleeper; looked at twice a second.",
            buckets=LAG_BUCKETS,
            registry=registry,
        )

    def committed(self, seconds: float, works: int, *, kept: bool) -> None:
        """A group commit ended; called on the writer's thread."""
        if not kept:
            self.commit_failures.inc()
            return
        self.commit_seconds.observe(seconds)
        self.commit_works.inc(works)

    @contextlib.contextmanager
    def phase(self, name: str) -> Generator[None, None, None]:
        """Around one phase in the executor."""
        started, outcome = time.perf_counter(), DONE
        self.open_phases.inc()
        try:
            yield
        except Unreachable:
            outcome = WAITS
            raise
        except ShardworkError:
            outcome = FAILED
            raise
        finally:
            self.open_phases.dec()
            self.phases.labels(name, outcome).inc()
            self.phase_seconds.labels(name).observe(time.perf_counter() - started)
