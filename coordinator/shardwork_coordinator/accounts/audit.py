"""Audit: what a person did as operator, in the transaction in which it was done. Append-only; nothing here decides.

Used by the dashboard's actions, the operator's commands and the rules of the house.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..records import AuditEntry
from ..store.base import Transaction

COMMAND_LINE = "command line"
LONGEST_REASON = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """Something that somebody is about to do."""

    #: "worker.quarantine", "job.cancel", …
    action: str
    subject: str
    sentence: str
    reason: str = ""
    evidence: Mapping[str, str] = field(default_factory=dict[str, str])


_numbers = itertools.count()


def new_entry_id(at_ms: int) -> str:
    """Sorts by time and, within a millisecond of one coordinator, by order; no two coordinators make the same."""
    return f"{at_ms:013d}-{next(_numbers):08d}-{secrets.token_hex(4)}"


def enter(tx: Transaction, deed: Deed, actor: str, now_ms: int) -> AuditEntry:
    """Notes it. Called inside the transaction that does it: neither happens without the other."""
    return tx.insert(
        AuditEntry(
            id=new_entry_id(now_ms),
            at_ms=now_ms,
            actor=actor,
            action=deed.action,
            subject=deed.subject,
            sentence=deed.sentence,
            reason=deed.reason[:LONGEST_REASON],
            evidence_json=json.dumps(dict(deed.evidence), sort_keys=True),
        )
    )
