"""Changes: a rule gets another value, by a row that stays, with an entry in the audit log in the same transaction.

Owns rows of `PolicyChange`. What a row says that this version does not understand does not count. Called by `house`,
the dashboard and the operator's commands.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from shardwork.errors import Conflict, InvalidInput, ShardworkError

from ..accounts import audit
from ..records import PolicyChange
from ..settings import Settings
from ..store.base import Transaction
from .rules import GROUPS, Value, parsed, rule, shown

#: a change with this value lets the setting count again
RESET = "null"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants a rule to be."""

    name: str
    #: as it was written; None: as the settings have it
    value: str | None
    reason: str
    actor: str
    #: the value that they saw, as JSON; None where nobody looked first
    seen_json: str | None = None


def newest(tx: Transaction, name: str) -> PolicyChange | None:
    """The change of this rule that counts."""
    found = tx.find(PolicyChange, name=name, order="id", descending=True, limit=1)
    return found[0] if found else None


def history(tx: Transaction, name: str | None = None, limit: int = 50) -> list[PolicyChange]:
    """Newest first; of one rule or of all."""
    if name is None:
        return tx.find(PolicyChange, order="id", descending=True, limit=limit)
    return tx.find(PolicyChange, name=rule(name).name, order="id", descending=True, limit=limit)


def in_force(tx: Transaction, settings: Settings) -> Settings:
    """The settings with every rule as it was changed last."""
    values: dict[str, Value] = {}
    for names in GROUPS.values():
        for name in names:
            change = newest(tx, name)
            if change is not None and (value := _value(change)) is not None:
                values[name] = value
    return settings.model_copy(update=values)


def decide(tx: Transaction, settings: Settings, wish: Wish, now_ms: int) -> PolicyChange:
    """Writes the change down, in the policy and in the audit log. `settings`: those of this coordinator's file.

    Raises NotFound "policy.unknown_rule", InvalidInput "policy.bad_value" or "policy.no_reason", Conflict
    "policy.unchanged" or "policy.changed_meanwhile".
    """
    found, reason = rule(wish.name), wish.reason.strip()
    if not reason:
        raise InvalidInput(
            "policy.no_reason", "A change of a rule needs a reason.", next_step="Say why; others read it later."
        )
    setting: Value = getattr(settings, found.name)
    old: Value = getattr(in_force(tx, settings), found.name)
    new = setting if wish.value is None else parsed(found.name, wish.value)
    if wish.seen_json is not None and wish.seen_json != json.dumps(old):
        raise Conflict(
            "policy.changed_meanwhile",
            f"{found.name} became {shown(old) or 'empty'} while you looked at it; nothing was changed.",
            next_step="Look at it again, and decide anew.",
        )
    latest = newest(tx, found.name)
    is_reset = wish.value is None
    if new == old and is_reset == (latest is None or latest.new_json == RESET):
        raise Conflict(
            "policy.unchanged", f"{found.name} is {shown(old) or 'empty'} already.", next_step="Nothing to do."
        )
    sentence = f"{found.name} is {shown(new) or 'empty'} now, after {shown(old) or 'empty'}."
    deed = audit.Deed(
        action="policy.reset" if is_reset else "policy.set",
        subject=found.name,
        sentence=sentence,
        reason=reason,
        evidence={"old": shown(old), "new": shown(new)},
    )
    audit.enter(tx, deed, wish.actor, now_ms)
    at_ms = _after_all(tx, now_ms)
    return tx.insert(
        PolicyChange(
            id=audit.new_entry_id(at_ms),
            at_ms=at_ms,
            actor=wish.actor,
            name=found.name,
            old_json=json.dumps(old),
            new_json=RESET if is_reset else json.dumps(new),
            reason=reason[: audit.LONGEST_REASON],
        )
    )


def _after_all(tx: Transaction, now_ms: int) -> int:
    """The newest id counts, so the clock of whoever decided before must not be ahead of it."""
    latest = tx.find(PolicyChange, order="id", descending=True, limit=1)
    return max(now_ms, latest[0].at_ms + 1) if latest else now_ms


def _value(change: PolicyChange) -> Value | None:
    if change.new_json == RESET:
        return None
    try:
        return parsed(change.name, json.loads(change.new_json))
    except (ShardworkError, ValueError):
        # of another version; the setting counts
        return None
