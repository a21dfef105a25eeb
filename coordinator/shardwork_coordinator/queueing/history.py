"""A worker's record here: how fast it is, whether it ever finished anything, and whether it should rest.

Read from its last leases, so that it holds after a restart and for every coordinator on the database. Decides nothing
about who gets what (`scheduler`); changes nothing. Used by `granting` and the sweeper.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..records import Lease, ReplicaState
from ..store.base import Transaction

#: leases that are looked back at
LOOK_BACK = 20
#: so many failures in a row are bad luck; from then on each one doubles the rest
FREE_FAILURES = 4
FIRST_REST_S, LONGEST_REST_S = 60, 3600
#: reasons to give a lease back that say nothing against the worker or the shard
BLAMELESS = (
    "worker.paused",
    "worker.stopping",
    "worker.finish",
    "worker.draining",
    "worker.disk_",
    "worker.busy",
    "worker.below_minimum",
    "worker.other_class",
    # its owner's limits: hours, use by others, power, disk, bytes
    "worker.limit_",
)
#: and of leases that were taken back because the job ended
JOB_ENDED = "job."
#: as for those that the operator took from it (`standing.TAKEN_BACK`)
OPERATOR = "operator."
NOT_ITS_OWN = (JOB_ENDED, OPERATOR)
#: falling silent is the worker's own doing; anything else may be the job's
SILENT = "lease.silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    #: results accepted among the last leases
    accepted: int = 0
    failures_in_a_row: int = 0
    last_failure_ms: int = 0
    #: median over the larger of its accepted shards, from grant to verdict; 0: not known
    units_per_s: int = 0

    def rests_until_ms(self) -> int:
        """When it may be given work again; 0: at once. Whoever loses one lease after the other would keep every job
        waiting, and one who takes leases without working them hoards (lease hoarding: a limit per key)."""
        beyond = self.failures_in_a_row - FREE_FAILURES
        if beyond < 0:
            return 0
        rest_s = min(FIRST_REST_S << min(beyond, 10), LONGEST_REST_S)
        return self.last_failure_ms + rest_s * 1000


def history_of(tx: Transaction, worker: str) -> History:
    """The record of one worker."""
    found = tx.find(Lease, worker_id=worker, order="ended_ms", descending=True, limit=LOOK_BACK)
    return history([lease for lease in found if lease.ended_ms])


def history(leases: Sequence[Lease]) -> History:
    """From ended leases, newest first. Pure."""
    accepted = [one for one in leases if one.state is ReplicaState.ACCEPTED]
    # of a tiny shard the time says how long it takes to fetch and start, not how fast the worker computes
    large = sorted((one for one in accepted if one.work_units), key=lambda one: -one.work_units)
    large = large[: -(-len(large) // 2)]
    speeds = [one.work_units * 1000 // max(one.ended_ms - one.granted_ms, 1) for one in large]
    failures: list[Lease] = []
    for lease in leases:
        if lease.state is ReplicaState.ACCEPTED:
            break
        if not is_blameless(lease):
            failures.append(lease)
    # a job that fails everywhere counts once: whoever submits one must not send all workers to rest
    causes = {lease.id if _has(lease, SILENT) else lease.job_id for lease in failures}
    return History(
        accepted=len(accepted),
        failures_in_a_row=len(causes),
        last_failure_ms=failures[0].ended_ms if failures else 0,
        units_per_s=int(statistics.median(speeds)) if speeds else 0,
    )


def is_blameless(lease: Lease) -> bool:
    """Whether its end says nothing against its worker."""
    return any(_has(lease, code) for code in (*BLAMELESS, *NOT_ITS_OWN))


def _has(lease: Lease, code: str) -> bool:
    return f'"code": "{code}' in lease.why_json
