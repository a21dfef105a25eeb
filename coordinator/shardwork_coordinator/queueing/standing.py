"""Standing: what the operator lets a worker do, as rows and in words.

    normal       offered whatever it can take
    drained      finishes what it holds and is paid for it; gets nothing new
    quarantined  what it holds goes to others, at no attempt's cost; gets nothing new; its earnings are not paid out
    banned       quarantined, and its key is refused

Owns the change of a party's row and the reasons that are told. Carried out by the sweeper (leases, streams), `granting`
and `scheduler` (nothing new), `engine` (stale results) and `money.payouts`. Called by the dashboard and the operator's
commands, which note the deed in the same transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from shardwork.errors import Conflict, InvalidInput, NotFound
from shardwork.identity.role import Role
from shardwork.why import Why

from ..accounts.audit import LONGEST_REASON, Deed
from ..records import Party, Standing
from ..store.base import Transaction

#: gets nothing new
RESTRICTED = (Standing.DRAINED, Standing.QUARANTINED, Standing.BANNED)
#: loses what it holds, and its earnings stay where they are
DISTRUSTED = (Standing.QUARANTINED, Standing.BANNED)
#: of the reason why a lease was taken back; no worker may say it of itself
TAKEN_BACK = "operator.took_lease"
ACTIONS: Mapping[Standing, str] = {
    Standing.NORMAL: "worker.restore",
    Standing.DRAINED: "worker.drain",
    Standing.QUARANTINED: "worker.quarantine",
    Standing.BANNED: "worker.ban",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Restriction:
    """What the operator decided of one worker."""

    standing: Standing
    why: Why


def why_restricted(standing: Standing, reason: str) -> Why:
    """What the worker's owner, and whoever asks why it is idle, is told."""
    evidence = {"reason": reason}
    if standing is Standing.DRAINED:
        return Why(
            code="worker.drained_by_operator",
            sentence="The operator drains this worker: it finishes what it holds and gets nothing new.",
            evidence=evidence,
            next_step="Ask the operator, who can restore it; its owner may stop it once it holds nothing.",
        )
    if standing is Standing.QUARANTINED:
        return Why(
            code="worker.quarantined_by_operator",
            sentence="The operator put this worker into quarantine: it gets nothing, and its earnings are held.",
            evidence=evidence,
            next_step="Ask the operator, who can restore it; what it has earned is paid out then.",
        )
    return Why(
        code="worker.banned_by_operator",
        sentence="The operator banned this worker: its key is refused, and its earnings are held.",
        evidence=evidence,
        next_step="Ask the operator.",
    )


def why_taken_back() -> Why:
    """What a job's owner reads; why the operator did it is no concern of theirs."""
    return Why(
        code=TAKEN_BACK,
        sentence="the operator took its worker out of service.",
        next_step="Nothing to do: it is offered to another worker, and the attempt does not count.",
    )


def change(tx: Transaction, worker_id: str, standing: Standing, reason: str) -> Party:
    """Sets it. Raises NotFound "worker.not_found", Conflict "worker.unchanged" or InvalidInput "worker.no_reason"."""
    party = worker(tx, worker_id)
    reason = stated(reason)
    if party.standing is standing:
        raise Conflict(
            "worker.unchanged",
            f"Worker {worker_id} is {standing} already; nothing was done.",
            next_step="Nothing to do; `shardwork-coordinator worker list` says what each may do.",
            standing=standing,
        )
    is_free = standing is Standing.NORMAL
    party = replace(
        party,
        standing=standing,
        standing_why_json="" if is_free else why_restricted(standing, reason).to_json(),
        revoked=standing is Standing.BANNED,
    )
    tx.put(party)
    return party


def mark_reference(tx: Transaction, worker_id: str, *, reference: bool) -> Party:
    """Raises NotFound "worker.not_found"."""
    party = replace(worker(tx, worker_id), reference=reference)
    tx.put(party)
    return party


def worker(tx: Transaction, worker_id: str) -> Party:
    """Raises NotFound "worker.not_found"."""
    party = tx.get(Party, worker_id)
    # whoever judges is paid as a worker is, and shut out as one
    if party is None or not {Role.WORKER, Role.ANNOTATOR} & set(party.roles.split(",")):
        raise NotFound(
            "worker.not_found",
            f"There is no worker {worker_id[:40]!r}.",
            next_step="`shardwork-coordinator worker list` has every worker that ever enrolled.",
            worker=worker_id[:40],
        )
    return party


def stated(reason: str) -> str:
    """Raises InvalidInput "worker.no_reason"."""
    reason = " ".join(reason.split())[:LONGEST_REASON]
    if not reason:
        raise InvalidInput(
            "worker.no_reason",
            "No reason was given.",
            next_step="Say why, for the audit log and for the worker's owner.",
        )
    return reason


def deed(worker_id: str, standing: Standing, reason: str) -> Deed:
    """For the audit log."""
    sentences = {
        Standing.NORMAL: f"Worker {worker_id} is restored: it gets work again.",
        Standing.DRAINED: f"Worker {worker_id} is drained: it finishes what it holds and gets nothing new.",
        Standing.QUARANTINED: f"Worker {worker_id} is in quarantine: its leases go to others, its earnings are held.",
        Standing.BANNED: f"Worker {worker_id} is banned: its key is refused, its earnings are held.",
    }
    return Deed(action=ACTIONS[standing], subject=worker_id, sentence=sentences[standing], reason=reason)


def reference_deed(worker_id: str, *, reference: bool, reason: str) -> Deed:
    sentence = f"Worker {worker_id} is {'a' if reference else 'no longer a'} reference worker."
    return Deed(action="worker.reference", subject=worker_id, sentence=sentence, reason=reason)


def restrictions(tx: Transaction) -> dict[str, Restriction]:
    """Every worker that gets nothing new."""
    found = tx.pick(Party, ("id", "standing", "standing_why_json"), standing=RESTRICTED)
    return {name: restriction(standing, why_json) for name, standing, why_json in found}


def references(tx: Transaction, workers: Sequence[str]) -> set[str]:
    """Those of them that the operator vouches for."""
    return {name for (name,) in tx.pick(Party, ("id",), id=workers, reference=True)}


def restriction(standing: Standing, why_json: str) -> Restriction:
    return Restriction(standing=standing, why=Why.from_json(why_json) if why_json else why_restricted(standing, ""))


def of(party: Party) -> Restriction | None:
    """None for one that may do everything."""
    return None if party.standing is Standing.NORMAL else restriction(party.standing, party.standing_why_json)


def among(tx: Transaction, standings: Collection[Standing]) -> set[str]:
    """Ids of the workers with one of these standings."""
    return {name for (name,) in tx.pick(Party, ("id",), standing=standings)}
