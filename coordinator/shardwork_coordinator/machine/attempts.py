"""Attempts in words: what a job's log says of one lease of a shard, from its grant to its verdict.

Pure: rows in, notes out. Most are details, which `job logs` tells and `job events` leaves out. A sentence names its
worker in full and so does the evidence, so that a reader may put a shorter name or a person's in its place. Used by
`leases`, by `verdicts`, and by the handler that hears of progress.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from shardwork.ids import LeaseId, ShardId
from shardwork.money import show
from shardwork.why import Why

from ..events import Note, ResultSubmitted
from ..records import Replica, Shard

#: progress is told when another such part of a shard is done, once a lease: its row counts them
PARTS = 4


def lease_id(replica: Replica) -> str:
    return str(LeaseId(ShardId(replica.shard_id), replica.number, replica.epoch))


def called(shard: Shard) -> str:
    """ "learn shard 3", as every sentence about a shard calls it."""
    return called_by(shard.phase, shard.position, shard.audits)


def called_by(phase: str, position: int, audits: str) -> str:
    """From the columns; an audit by what it checks, since its own position says nothing to anybody."""
    if not audits:
        return f"{phase} shard {position}"
    *_, checked, place = audits.rpartition("#")[0].split("/")
    return f"{phase} of {checked} shard {place.removeprefix('s')}"


def granted(shard: Shard, replica: Replica) -> Note:
    if replica.donated:
        price = {"price_msat": "0", "donated": "yes"}
    else:
        price = {"price_msat": str(shard.price_msat), "fee_msat": str(shard.fee_msat)}
        price["work_units"] = str(shard.work_units)
    return Note(
        kind="shard.leased",
        subject=shard.id,
        sentence=f"{called(shard)} went to worker {replica.worker_id}.",
        evidence={**_who(replica), "purpose": str(replica.purpose), **price},
    )


def progressed(shard: Shard, replica: Replica) -> tuple[Replica, Note | None]:
    """The replica as its worker just told of it, and what is to be said of that: at most PARTS - 1 notes a lease,
    however often a worker goes back and forth."""
    done = min(int(replica.progress * PARTS), PARTS - 1)
    if done <= replica.parts_told:
        return replica, None
    loss = "" if replica.loss is None else f", loss {replica.loss:.5g}"
    note = Note(
        kind="shard.progress",
        subject=shard.id,
        sentence=f"{called(shard)} is {100 * done // PARTS} % done on worker {replica.worker_id}{loss}.",
        evidence={**_who(replica), **_how_far(replica)},
        detail=True,
    )
    return replace(replica, parts_told=done), note


def handed_in(shard: Shard, replica: Replica, event: ResultSubmitted) -> Note:
    """A result arrived whole; what is thought of it is another line."""
    loss = event.metrics.get("train_loss")
    told = "" if loss is None else f", mean loss {loss:.5g}"
    evidence = {"compute_ms": event.compute_ms, "bytes_up": event.bytes_up, "bytes_down": event.bytes_down}
    return Note(
        kind="shard.uploaded",
        subject=shard.id,
        sentence=f"{called(shard)} was computed in {event.compute_ms / 1000:.1f} s and uploaded by worker "
        f"{replica.worker_id}{told}.",
        evidence={
            **_who(replica),
            **{name: str(value) for name, value in evidence.items()},
            **({} if loss is None else {"loss": f"{loss:.6g}"}),
        },
        detail=True,
    )


def ran_out_of_memory(shard: Shard, replica: Replica, metrics: Mapping[str, float]) -> Note:
    rows, before = metrics.get("micro_batch_size", 0), metrics.get("micro_batch_before", 0)
    # a worker of an earlier version does not say what it began with
    sizes = f"micro-batch {before:g} -> {rows:g}" if before else f"micro-batch of {rows:g}"
    return Note(
        kind="shard.memory_halved",
        subject=shard.id,
        sentence=f"{called(shard)} ran out of memory on worker {replica.worker_id}: {sizes}; the batch and the result "
        "are the same.",
        evidence={
            **_who(replica),
            "halvings": f"{metrics['memory_halvings']:g}",
            **({"before": f"{before:g}"} if before else {}),
            "after": f"{rows:g}",
        },
    )


def accepted(shard: Shard, replica: Replica, paid_msat: int) -> Note:
    price = "given for nothing" if replica.donated else f"paid {show(paid_msat)}"
    return Note(
        kind="shard.accepted",
        subject=shard.id,
        sentence=f"{called(shard)} of worker {replica.worker_id} was accepted and {price}.",
        evidence={**_who(replica), "paid_msat": str(paid_msat), **({"donated": "yes"} if replica.donated else {})},
        detail=True,
    )


def refused(shard: Shard, replica: Replica, why: Why | None) -> Note:
    return Note(
        kind="shard.rejected",
        subject=shard.id,
        sentence=f"{called(shard)} of worker {replica.worker_id} was refused: {why.sentence if why else ''}",
        evidence={**_who(replica), **_because(why)},
    )


def taken_back(shard: Shard, replica: Replica, why: Why, *, detail: bool = False) -> Note:
    """It ends without a result; how far it had come is told, because its row forgets it."""
    return Note(
        kind="shard.expired",
        subject=shard.id,
        sentence=f"{called(shard)} was taken back from worker {replica.worker_id}: {why.sentence}",
        evidence={**_who(replica), **_how_far(replica), **_because(why)},
        detail=detail,
    )


def offered_again(shard: Shard, replica: Replica, left: int) -> Note:
    """`replica`: as it was when its attempt ended."""
    tries = "one more try" if left == 1 else f"{left} more tries"
    return Note(
        kind="shard.retried",
        subject=shard.id,
        sentence=f"{called(shard)} is offered again, with {tries}.",
        evidence={"lease": lease_id(replica), "attempts_left": str(left)},
        detail=True,
    )


def _who(replica: Replica) -> dict[str, str]:
    return {"lease": lease_id(replica), "worker": replica.worker_id}


def _how_far(replica: Replica) -> dict[str, str]:
    loss = {} if replica.loss is None else {"loss": f"{replica.loss:.6g}"}
    return {"progress": f"{replica.progress:.3f}", **loss}


def _because(why: Why | None) -> dict[str, str]:
    return {} if why is None else {**why.evidence, "code": why.code}
