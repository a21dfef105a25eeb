"""Rules: what every row must satisfy, each said twice, in SQL for the CHECK constraints and in Python for both stores.

The ledger and the machine keep these anyway; here they are the last line of defence. Used by `tables` (SQL) and by
both stores before a row is taken (Python).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shardwork.errors import Conflict, Internal

from ..records import RECORDS, Account, AuditEntry, DepositRow, Event, Lease, Payout, PolicyChange, Record, Transfer
from .columns import columns, key_of, table_name

#: rows of these are never edited and never removed
APPEND_ONLY: tuple[type[Record], ...] = (Transfer, Event, AuditEntry, PolicyChange)


@dataclass(frozen=True, slots=True)
class Rule:
    kind: type[Record]
    #: name of the CHECK constraint
    name: str
    sql: str
    #: called with a record of `kind`
    holds: Callable[[Any], bool]


def _own_rules() -> list[Rule]:
    resolving = "(kind IN ('post', 'void')) = (resolves IS NOT NULL)"
    floor = "substr(id, 1, 9) = 'external:' OR credits_posted - debits_posted - debits_pending >= 0"
    return [
        Rule(Transfer, "ck_transfer_msat", "msat > 0", lambda row: row.msat > 0),
        Rule(Transfer, "ck_transfer_accounts", "debit <> credit", lambda row: row.debit != row.credit),
        Rule(
            Transfer,
            "ck_transfer_resolves",
            resolving,
            lambda row: (row.kind in ("post", "void")) == (row.resolves is not None),
        ),
        Rule(Account, "ck_account_floor", floor, _above_floor),
        Rule(DepositRow, "ck_deposit_msat", "msat > 0", lambda row: row.msat > 0),
        Rule(Payout, "ck_payout_msat", "msat > 0", lambda row: row.msat > 0),
    ]


def _above_floor(row: Account) -> bool:
    return row.id.startswith("external:") or row.credits_posted - row.debits_posted - row.debits_pending >= 0


def _column_rules(kind: type[Record]) -> list[Rule]:
    """One rule per enum column and one per amount that can't be negative."""
    rules: list[Rule] = []
    for column in columns(kind).values():
        name = f"ck_{table_name(kind)}_{column.name}"
        if column.choices:
            listed = ", ".join(f"'{choice}'" for choice in column.choices)
            # Column.accepts has refused other values already
            rules.append(Rule(kind, name, f"{column.name} IN ({listed})", lambda row: True))
        elif column.name.endswith("_msat") or (kind is Account and column.type is int):
            rules.append(Rule(kind, name, f"{column.name} >= 0", _not_negative(column.name)))
    return rules


def _not_negative(name: str) -> Callable[[Any], bool]:
    return lambda row: getattr(row, name) >= 0


_RULES = {kind: (*_column_rules(kind), *(rule for rule in _own_rules() if rule.kind is kind)) for kind in RECORDS}


def rules(kind: type[Record]) -> tuple[Rule, ...]:
    """Every rule of one record class."""
    return _RULES[kind]


def check_record(record: Record) -> None:
    """Raises Internal "store.unknown_kind", "store.bad_value" or "store.rule_broken"."""
    kind = type(record)
    if kind not in RECORDS:
        raise Internal("store.unknown_kind", "This class has no table.", kind=kind.__name__)
    for column in columns(kind).values():
        value = getattr(record, column.name)
        if not column.accepts(value):
            raise Internal(
                "store.bad_value",
                f"{kind.__name__}.{column.name} can't hold this value.",
                key=key_of(record),
                type=type(value).__name__,
            )
    for rule in rules(kind):
        if not rule.holds(record):
            raise Internal("store.rule_broken", "A row breaks a rule of its table.", rule=rule.name, key=key_of(record))


def check_replace(old: Record) -> None:
    """Whether this stored row may be replaced. Raises Conflict "store.append_only"."""
    if isinstance(old, APPEND_ONLY) or (isinstance(old, Lease) and old.ended_ms != 0):
        raise Conflict("store.append_only", f"A stored {type(old).__name__} can't change.", key=key_of(old))


def duplicate(record: Record, names: tuple[str, ...] = ()) -> Conflict:
    """The refusal of a row whose key or unique set exists."""
    return Conflict(
        "store.duplicate",
        f"This {type(record).__name__} exists already.",
        key=key_of(record),
        columns=", ".join(names or record.KEY),
    )
