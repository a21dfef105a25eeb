"""Reasons: what is told of a wait, a retry, a refusal or a price is whole, and stands in the reference."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .tree import ROOT, Module, assert_none, module, planted

_COORDINATOR = "coordinator/shardwork_coordinator"
#: where people are told why something waits, is tried again, refused or priced
TELLING = (
    *(f"{_COORDINATOR}/{name}.py" for name in ("reasons", "scheduler", "views", "sweeper", "rpc/steering")),
    f"{_COORDINATOR}/queueing/stragglers.py",
    f"{_COORDINATOR}/machine/endings.py",
    "worker/shardwork_worker/account/reasons.py",
    "worker/shardwork_worker/agent.py",
    "worker/shardwork_worker/limits/guard.py",
    "worker/shardwork_worker/refusals.py",
    "worker/shardwork_worker/offer.py",
)
CODES = "docs/reference/codes.md"
#: states whose sentence is all there is to say
NO_STEP = frozenset({"worker.draining", "worker.stopping", "worker.busy", "worker.other_class"})


def told(found: Module) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Every reason that a module makes: its code, or a pattern of it, with its parts."""
    for node in ast.walk(found.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Why":
            parts = {word.arg: word.value for word in node.keywords if word.arg}
            if "code" in parts:
                yield _pattern(parts["code"]), parts


def _pattern(code: ast.expr) -> str:
    match code:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(str(one.value) if isinstance(one, ast.Constant) else "…" for one in values)
        case _:
            return ""


def lacking(found: Module) -> list[str]:
    """Reasons without a sentence, or without what to do about them."""
    return [
        f"{found.path}: {code or 'a reason'} lacks {part}"
        for code, parts in told(found)
        for part in ("sentence", "next_step")
        if part not in parts and not (part == "next_step" and code in NO_STEP)
    ]


def test_every_reason_that_is_told_has_a_sentence_and_a_next_step() -> None:
    assert_none(line for path in TELLING for line in lacking(module(path)))


def test_every_reason_that_is_told_stands_in_the_reference() -> None:
    page = (ROOT / CODES).read_text(encoding="utf-8")
    codes = {code for path in TELLING for code, _ in told(module(path)) if code and not code.endswith("…")}
    assert len(codes) > 30
    assert_none(f"{code} is not in {CODES}" for code in sorted(codes) if f"`{code}`" not in page)


def test_a_reason_without_a_next_step_is_found() -> None:
    text = 'from shardwork.why import Why\nx = Why(code="a.b", sentence="It waits.")\n'
    assert lacking(planted(text)) == ["shardwork/planted.py: a.b lacks next_step"]
    assert lacking(planted(text.replace('."', '.", next_step="Wait."'))) == []
