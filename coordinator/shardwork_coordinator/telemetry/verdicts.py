"""Verdicts: results accepted, refused and taken back, and alarms that rang, since this coordinator started, read from
the events.

Every coordinator on one database counts them all: add up nothing over instances, take one. Each look reads what was
noted since the last one, so it costs what happened and not what there is. Used by `web.metrics`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter

from shardwork.recipes.base import AUDIT_PHASE, AUDITED_PHASES

from ..records import Event, Shard
from ..store.base import Transaction
from .reasons import label_of

ACCEPTED, REJECTED, EXPIRED = "shard.accepted", "shard.rejected", "shard.expired"
ALARM = "stage.alarm"
#: phases that are always there, so that an alert knows the series before the first result
PHASES = ("init", "learn", "evaluate", "publish", *sorted(AUDITED_PHASES), AUDIT_PHASE)
#: how codes of refusals by audits begin, and that of a result that nobody could check
BY_AUDIT, IMPOSSIBLE = "audit.", "audit.impossible"
OUTCOMES = ("passed", "failed", "impossible")
PAGE = 1_000
#: what one look reads at most; the rest follows with the next
MOST_READ = 50_000


class Verdicts:
    """Counters since the first look."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seen: int | None = None
        self.accepted = Counter(
            "shardwork_shards_accepted",
            "Results accepted and paid since the start, by phase.",
            ["phase"],
            registry=registry,
        )
        self.tokens = Counter(
            "shardwork_tokens_accepted", "Planned tokens of accepted results, by phase.", ["phase"], registry=registry
        )
        self.rejected = Counter(
            "shardwork_shards_rejected",
            "Results refused since the start, by phase and the code of the reason.",
            ["phase", "reason"],
            registry=registry,
        )
        self.expired = Counter(
            "shardwork_shards_expired",
            "Leases that ended without a result since the start, by phase and the code of the reason.",
            ["phase", "reason"],
            registry=registry,
        )
        self.alarms = Counter(
            "shardwork_stage_alarms",
            "Alarms that rang for stages since the start, by code.",
            ["code"],
            registry=registry,
        )
        self.audits = Counter(
            "shardwork_audits",
            "Results that another worker checked, by outcome: passed, failed, or impossible to check.",
            ["outcome"],
            registry=registry,
        )
        for outcome in OUTCOMES:
            self.audits.labels(outcome)
        for phase in PHASES:
            self.accepted.labels(phase)
            self.tokens.labels(phase)

    def look(self, tx: Transaction) -> None:
        """Counts what was noted since the last look; the first one only learns where the events end."""
        if self._seen is None:
            newest = tx.find(Event, order="sequence", descending=True, limit=1)
            self._seen = newest[0].sequence if newest else 0
            return
        for event in _since(tx, self._seen):
            self._count(tx, event)
            self._seen = event.sequence

    def _count(self, tx: Transaction, event: Event) -> None:
        if event.kind == ALARM:
            # a recipe of ours says them, so they are few
            self.alarms.labels(json.loads(event.evidence_json).get("code", "")).inc()
            return
        if event.kind not in (ACCEPTED, REJECTED, EXPIRED):
            return
        shard = tx.get(Shard, event.subject)
        if shard is None:
            return
        evidence = json.loads(event.evidence_json)
        if event.kind == ACCEPTED:
            self.accepted.labels(shard.phase).inc()
            self.tokens.labels(shard.phase).inc(shard.tokens)
            self._passed(tx, shard, evidence.get("lease", ""))
            return
        code = evidence.get("code", "")
        if event.kind == REJECTED and code.startswith(BY_AUDIT):
            self.audits.labels("impossible" if code == IMPOSSIBLE else "failed").inc()
        counter = self.rejected if event.kind == REJECTED else self.expired
        counter.labels(shard.phase, label_of(code)).inc()

    def _passed(self, tx: Transaction, shard: Shard, lease: str) -> None:
        """A result that is accepted although it was audited was borne out."""
        if shard.phase in AUDITED_PHASES and tx.find(Shard, audits=lease.rpartition(".")[0], limit=1):
            self.audits.labels("passed").inc()


def _since(tx: Transaction, sequence: int) -> Iterator[Event]:
    last = sequence
    for _ in range(MOST_READ // PAGE):
        page = tx.find(Event, order="sequence", after=last, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        last = page[-1].sequence
