"""Status: what the worker is doing and why, as `shardwork-worker status` shows it.

Owns the record and its two forms, JSON (keys are a contract: add freely, rename never) and a readable block. The agent
makes it, the control socket carries it, the CLI prints it.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from shardwork.money import show
from shardwork.why import Why

from .log import harmless

#: columns of text beside a label, however narrow the terminal
MOST_NARROW = 24


class State(StrEnum):
    #: not welcomed by the coordinator yet
    JOINING = "joining"
    #: connected, waits for an offer
    READY = "ready"
    #: a lease is in hand
    BUSY = "busy"
    #: takes no work until `resume`
    PAUSED = "paused"
    #: completes the shard in hand, then takes no more
    DRAINING = "draining"
    #: not connected, or no worker runs
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Earned:
    #: accepted by the coordinator and posted to this worker's account
    paid_msat: int = 0
    #: handed in, verdict not known yet
    pending_msat: int = 0
    #: earned but held back, for example until an audit
    held_msat: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    state: State
    why: Why | None = None
    #: lease in hand
    shard: str | None = None
    #: what it is of, and what it pays
    recipe: str = ""
    phase: str = ""
    price_msat: int = 0
    progress: float | None = None
    #: fetching, computing, committing, uploading
    step: str | None = None
    loss: float | None = None
    earned: Earned = field(default_factory=Earned)
    worker_id: str = ""
    device: str = ""
    coordinator: str = ""
    shards_done: int = 0
    shards_failed: int = 0
    #: "bubblewrap", "kernel", "partial" or "none", and what a shard is not kept from
    sandbox: str = ""
    sandbox_lacks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The object that `status --json` prints."""
        return {
            "state": self.state.value,
            "why": why_to_json(self.why),
            "shard": self.shard,
            "recipe": self.recipe,
            "phase": self.phase,
            "price_msat": self.price_msat,
            "progress": self.progress,
            "step": self.step,
            "loss": self.loss,
            "earned_msat": {
                "paid": self.earned.paid_msat,
                "pending": self.earned.pending_msat,
                "held": self.earned.held_msat,
            },
            "worker_id": self.worker_id,
            "device": self.device,
            "coordinator": self.coordinator,
            "shards_done": self.shards_done,
            "shards_failed": self.shards_failed,
            "sandbox": {"kind": self.sandbox, "lacks": list(self.sandbox_lacks)},
        }


def offline(why: Why) -> Status:
    """The status of a worker that does not run."""
    return Status(state=State.OFFLINE, why=why)


def why_to_json(why: Why | None) -> dict[str, Any] | None:
    if why is None:
        return None
    return {
        "code": why.code,
        "sentence": why.sentence,
        "evidence": dict(why.evidence),
        "next_step": why.next_step,
    }


def why_from_json(raw: Mapping[str, Any]) -> Why:
    """Inverse of `why_to_json`; missing keys become empty text, because a child or an older worker may send less."""
    return Why(
        code=harmless(str(raw.get("code", ""))),
        sentence=harmless(str(raw.get("sentence", ""))),
        evidence={harmless(str(key)): harmless(str(value)) for key, value in dict(raw.get("evidence") or {}).items()},
        next_step=harmless(str(raw.get("next_step", ""))),
    )


def readable(status: Mapping[str, Any]) -> str:
    """A block of a few lines from the JSON form, for people."""
    rows = [("state", str(status["state"]))]
    if status["why"]:
        why = why_from_json(status["why"])
        rows.append(("why", replace(why, next_step="").render()))
        if why.next_step:
            rows.append(("next", why.next_step))
    if status["shard"]:
        rows.append(("shard", f"{status['shard']}  {status['step']} {status['progress'] or 0:.0%}"))
    # without a worker nobody asked the coordinator, and zeros would be a lie
    if status["worker_id"]:
        earned = status["earned_msat"]
        money = f"{show(earned['paid'])} paid, {show(earned['pending'])} pending, {show(earned['held'])} held"
        rows.append(("earned", money))
        rows.append(("worker", f"{status['worker_id']} on {status['device']} at {status['coordinator']}"))
        rows.append(("shards", f"{status['shards_done']} done, {status['shards_failed']} failed"))
        sandbox: Mapping[str, Any] | None = status.get("sandbox")
        if sandbox and sandbox.get("kind"):
            rows.append(("sandbox", _of_sandbox(sandbox)))
    return "\n".join(hanging(f"{name:<8}", text) for name, text in rows)


def _of_sandbox(sandbox: Mapping[str, Any]) -> str:
    lacks = ", ".join(sandbox.get("lacks") or ())
    return (
        f"{sandbox['kind']}; a shard is not kept from: {lacks} (shardwork-worker doctor)" if lacks else sandbox["kind"]
    )


def hanging(label: str, text: str) -> str:
    """The text behind its label, wrapped to the terminal it is read in; one line for a file or a pipe."""
    if not sys.stdout.isatty():
        return label + text
    columns = max(shutil.get_terminal_size().columns, len(label) + MOST_NARROW)
    # ids, addresses and paths stay whole, so that they can be copied
    return textwrap.fill(
        text,
        columns,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )
