"""What a worker says of itself and its work, made harmless: short, printable, few; requesters and operators read it.

Owns the limits of what may be said. Called by `attach` and `results`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from shardwork.errors import InvalidInput
from shardwork.recipes.abilities import known
from shardwork.v1 import types_pb2, work_pb2
from shardwork.why import Why

from ..queueing.history import NOT_ITS_OWN

#: metrics and outputs a submission may name, and letters of such a name
MOST_METRICS, MOST_OUTPUTS, LONGEST_NAME = 1_000, 64, 100
#: artifacts that a worker may say it holds, and letters of an id
MOST_HOLDINGS, ARTIFACT_ID_LETTERS = 64, 64
#: lines of its own benchmark that a worker may tell
MOST_SPEEDS = 32
#: leases that one message may speak of
MOST_LEASES = 64
CODE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")


def plain(text: str, limit: int) -> str:
    """What a worker says, as it may be kept and shown to others: short, and nothing a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:limit])


def reason(said: types_pb2.Why) -> Why:
    """A worker's reason, shortened: requesters read it, and every row and event that holds it is sent to them."""
    # what ends a job, or takes a worker out of service, is not the worker's to say: it would count as no fault of its
    is_own = CODE.fullmatch(said.code) and not said.code.startswith(NOT_ITS_OWN)
    code = said.code if is_own else "worker.gave_back"
    evidence = {plain(key, 40): plain(said.evidence[key], 200) for key in sorted(said.evidence)[:8]}
    return Why(
        code=code,
        sentence=plain(said.sentence, 400) or "its worker gave it back.",
        evidence=evidence,
        next_step=plain(said.next_step, 200),
    )


def shortened(said: work_pb2.Capability) -> work_pb2.Capability:
    kept = work_pb2.Capability()
    kept.CopyFrom(said)
    kept.device, kept.device_name = plain(said.device, 40), plain(said.device_name, 80)
    kept.execution_class, kept.torch_version = plain(said.execution_class, 80), plain(said.torch_version, 40)
    kept.abilities[:] = sorted(known(said.abilities))
    kept.recipes[:] = [plain(name, 40) for name in said.recipes[:64]]
    del kept.speeds[:]
    kept.speeds.extend(
        work_pb2.Speed(kind=plain(one.kind, 20), preset=plain(one.preset, 20), tokens_per_s=one.tokens_per_s)
        for one in said.speeds[:MOST_SPEEDS]
        if math.isfinite(one.tokens_per_s) and one.tokens_per_s > 0
    )
    return kept


def holdings(said: work_pb2.Holdings) -> frozenset[str]:
    """A bounded hint; what is no artifact id matches none."""
    return frozenset(one for one in said.artifact_ids[:MOST_HOLDINGS] if len(one) == ARTIFACT_ID_LETTERS)


def check_count(running: Sequence[work_pb2.LeaseStatus]) -> None:
    if len(running) > MOST_LEASES:
        raise InvalidInput("attach.too_many_leases", "No worker runs so many leases.", leases=len(running))


def check_names(submission: work_pb2.Submission) -> None:
    if len(submission.metrics) > MOST_METRICS or len(submission.outputs) > MOST_OUTPUTS:
        raise InvalidInput("result.too_many", "A submission names too many outputs or metrics.")
    names = [*(metric.name for metric in submission.metrics), *(output.name for output in submission.outputs)]
    odd = next((name for name in names if not 0 < len(name) <= LONGEST_NAME or not name.isprintable()), None)
    if odd is not None:
        raise InvalidInput("result.bad_name", "A metric or an output has a name that can't be.", name=odd[:80])
    not_finite = next((metric.name for metric in submission.metrics if not math.isfinite(metric.value)), None)
    if not_finite is not None:
        raise InvalidInput("result.not_finite", f"Metric {not_finite!r} is not a finite number.", metric=not_finite)
