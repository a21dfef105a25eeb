"""The page of log events: each stable name with its level, component and facts, read from where the code says it.

A component is what a module's `Log("…")` names; an event is the literal that its methods are given.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tables import code, page, table

COORDINATOR = Path(__file__).parents[1] / "coordinator" / "shardwork_coordinator"
#: what each says; one without fails the house test of the reference
MEANINGS = {
    "api.unexpected": "A call of the HTTP API met an error of the coordinator's own; the caller was told the request.",
    "artifacts.store_failed": "The object store did not answer, or refused; with its status and its own word for it.",
    "artifacts.sweep_failed": "What nobody needs could not be deleted; it is tried again in ten minutes.",
    "cluster.bad_notice": "Another's notice could not be read; the next look at the database makes up for it.",
    "cluster.beat_failed": "This coordinator could not say that it lives; others may take its effects over.",
    "cluster.came": "Another coordinator works on this database.",
    "cluster.cannot_call": "Others could not be told of a commit at once; they find it within a second.",
    "cluster.cannot_listen": "Notices of others do not arrive; the database is looked at each second meanwhile.",
    "cluster.went": "Another coordinator ended or fell silent.",
    "coordinator.part_ended": "A part that must run for ever ended; the process ends with it.",
    "coordinator.started": "It serves.",
    "coordinator.stopping": "It was told to stop.",
    "deposit.waits": "A deposit could not be looked at; it is tried again.",
    "effect.failed": "A phase of the coordinator's own failed; it is tried three times.",
    "effect.lost": "A failed effect could not even be recorded as failed; it is tried again.",
    "effect.unrecorded": "What came of a phase could not be written; it is tried three times.",
    "effect.waits": "A phase waits for the database or the artifact store.",
    "effects.unseen": "The database could not be asked for effects; it is asked again.",
    "files.few": "This process may open too few files for a thousand workers; raise the hard limit (`ulimit -Hn`).",
    "granting.failed": "Work could not be given out; that job is set aside for a while, the others go on.",
    "library.message": "A library's own words, without what was filled in.",
    "loop.exception": "A task of the event loop failed and nobody waited for it.",
    "metrics.part_failed": "The store gave no figures, or the ledger could not be counted.",
    "payments.simulated": "No sat is real.",
    "people.sweep_failed": "What time brings somebody who judges could not be done; it is tried again.",
    "people.unexpected": "A call of somebody who judges met an error of the coordinator's own; the caller was told.",
    "payout.backend_raised": "The payment node failed while paying; it is asked, and the payment is not sent again.",
    "payout.waits": "A payment could not go a step further; it is tried again.",
    "policy.changed": "An operator changed a rule of the house.",
    "policy.look_failed": "The rules of the house could not be read; the last ones stay in force.",
    "rpc.ended": "A call ended; only at level debug.",
    "rpc.unexpected": "A call met an error of the coordinator's own; the caller was told the request.",
    "store.close_failed": "The writer's connection could not be closed cleanly.",
    "store.commit_unanswered": "The connection ended in a commit; the next one found out whether it was kept.",
    "store.connection_ended": "The database's connection ended; nothing of the group was kept, and it runs again.",
    "store.stopped": "A commit failed and nobody knows whether it was kept; the process ends, a restart looks.",
    "store.unreachable": "The database can't be reached; it is tried for a while.",
    "sweep.clock_was_set": "The machine's clock jumped or the machine slept; leases live on for a full time.",
    "sweep.part_failed": "A part of what time brings failed; the others go on, and it is tried again.",
    "sweep.step_failed": "What time brought for one shard or job could not be carried out; it is tried again.",
    "web.unexpected": "A page of the dashboard met an error of the coordinator's own; its reader was told that much.",
    "worker.came": "A worker attached.",
    "worker.went": "A worker left, or its connection broke.",
}
LEVELS = ("debug", "info", "warning", "error")
LEAD = (
    "One line an event, on standard error; see [monitoring](../operating/monitoring.md#the-log). Names are stable, "
    "scripts may match on them. Every line also has `timestamp`, `level` and `component`, within a call its `request`, "
    "and where an error is told its kind as `error`; at level `error` also `cause` and `trace`."
)


def events() -> str:
    found = {row for path in sorted(COORDINATOR.rglob("*.py")) for row in _of_module(path)}
    found.add(("library.message", "warning", "the library's logger", f"{code('at')}, {code('message')}"))
    rows = [(code(event), *rest, MEANINGS.get(event, "")) for event, *rest in sorted(found)]
    return page("Log events", LEAD, table(("Event", "Level", "Component", "Facts", "Meaning"), rows))


def _of_module(path: Path) -> Iterator[tuple[str, str, str, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    loggers = {name: component for node in ast.walk(tree) for name, component in _loggers(node)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
            continue
        owner, event = node.func.value, node.args[0] if node.args else None
        component = loggers.get(owner.id) if isinstance(owner, ast.Name) else _component(owner)
        if component is not None and isinstance(event, ast.Constant):
            facts = [code(word.arg) for word in node.keywords if word.arg and word.arg != "error"]
            yield str(event.value), node.func.attr, component, ", ".join(facts)


def _loggers(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(variable, component) of `x = Log("…")`, also as a part of `a, x = …, Log("…")`."""
    if not isinstance(node, ast.Assign):
        return
    for target in node.targets:
        many = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
        pairs = zip(target.elts, node.value.elts, strict=False) if many else [(target, node.value)]
        for name, value in pairs:
            if isinstance(name, ast.Name) and (component := _component(value)) is not None:
                yield name.id, component


def _component(value: ast.expr) -> str | None:
    """What `Log("…")` names."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) in ("Log", "logs.Log"):
        return str(ast.literal_eval(value.args[0]))
    return None
