"""Tally: what a round counts as its results are decided, and that its phase is complete. Pure; called by `step`.

Counted here once, from the rows that a step wrote, so that no rule can forget it and nobody has to add up leases.
"""

from __future__ import annotations

from dataclasses import replace

from ..events import Change, Follow, Slice
from ..records import Lease, ReplicaState, Round, Shard, ShardState
from .states import FINAL_ROUND


def tally(state: Slice, change: Change) -> Change:
    """Adds the step's verdicts to the slice's round; asks for the end of the phase when its last shard is done."""
    decided = _decided(state, change)
    done = _done(state, change)
    if not decided and not done:
        return change
    accepted = [(shard, lease) for shard, lease in decided if lease.state is ReplicaState.ACCEPTED]
    paid = [shard for shard, lease in accepted if not lease.donated_msat]
    round_ = _written_round(state, change)
    round_ = replace(
        round_,
        shards_left=round_.shards_left - done,
        accepted=round_.accepted + len(accepted),
        rejected=round_.rejected + len(decided) - len(accepted),
        paid_msat=round_.paid_msat + sum(shard.price_msat for shard in paid),
        fees_msat=round_.fees_msat + sum(shard.fee_msat for shard in paid),
        donated_msat=round_.donated_msat + sum(lease.donated_msat for _, lease in accepted),
    )
    change.rows.append(round_)
    if done and round_.shards_left == 0 and round_.state not in FINAL_ROUND:
        change.follow = Follow.CLOSE_PHASE
    return change


def _decided(state: Slice, change: Change) -> list[tuple[Shard, Lease]]:
    """Each lease that got its verdict in this step, with its shard."""
    verdicts = {
        row.id: row
        for row in change.rows
        if isinstance(row, Lease) and row.state in (ReplicaState.ACCEPTED, ReplicaState.REJECTED)
    }
    return [(state.shard(lease.shard_id), lease) for lease in verdicts.values()]


def _done(state: Slice, change: Change) -> int:
    """How many of the phase's shards became done in this step; audits are beside it."""
    before = {shard.id for shard in state.shards if shard.state is ShardState.DONE}
    shards = [row for row in change.rows if isinstance(row, Shard) and row.phase == state.round.phase]
    after = {row.id for row in shards if row.state is ShardState.DONE}
    return len(after - before)


def _written_round(state: Slice, change: Change) -> Round:
    """The round as this change last wrote it."""
    written = [row for row in change.rows if isinstance(row, Round) and row.number == state.round.number]
    return written[-1] if written else state.round
