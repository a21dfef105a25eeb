"""The one state machine: `step(slice, event, world) -> Change`. Pure: no I/O, clock or randomness inside.

`moves` holds the table of legal moves and refuses every other; `leases` moves replicas and shards, `phases` and
`planning` move rounds and stages, `gates` skips stages, `endings` moves jobs, `tally` counts. Only this package assigns
a state. Called by `engine`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..events import (
    BackupWanted,
    Change,
    ExecutorFailed,
    ExecutorFinished,
    JobCancelled,
    JobPaused,
    JobResumed,
    LeaseGranted,
    LeaseLost,
    MachineEvent,
    PhaseDone,
    PublishDue,
    QuorumShrunk,
    ReferenceGone,
    ReserveExtended,
    ResultCommitted,
    ResultSubmitted,
    Slice,
    StageSkipped,
    StageStarted,
    TimedOut,
    ToppedUp,
    World,
)
from . import endings, gates, leases, people, phases
from .tally import tally

_HANDLERS: dict[type, Callable[[Slice, Any, World], Change]] = {
    StageStarted: phases.stage_started,
    StageSkipped: gates.stage_skipped,
    LeaseGranted: leases.granted,
    ResultCommitted: leases.committed,
    ResultSubmitted: leases.submitted,
    LeaseLost: leases.lost,
    BackupWanted: leases.backup,
    QuorumShrunk: leases.quorum_shrunk,
    ReferenceGone: leases.reference_gone,
    ReserveExtended: leases.reserve_extended,
    PhaseDone: phases.phase_done,
    PublishDue: phases.publish_due,
    ExecutorFinished: phases.executor_finished,
    ExecutorFailed: phases.executor_failed,
    JobPaused: endings.paused,
    JobResumed: endings.resumed,
    JobCancelled: endings.cancelled,
    TimedOut: endings.timed_out,
    ToppedUp: endings.topped_up,
}


def step(state: Slice, event: MachineEvent, world: World) -> Change:
    """The change that `event` makes to `state`. Raises Conflict "machine.illegal_move" with the story otherwise."""
    if people.concerns(state, event):
        return tally(state, people.stepped(state, event, world))
    return tally(state, _HANDLERS[type(event)](state, event, world))
