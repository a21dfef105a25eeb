"""Sets of states that several rules ask for."""

from __future__ import annotations

from ..records import JobState, ReplicaState, RoundState

#: a worker holds it
LIVE = frozenset({ReplicaState.LEASED, ReplicaState.COMMITTED})
#: it came to nothing, and may be offered again
ENDED = frozenset({ReplicaState.EXPIRED, ReplicaState.REJECTED})
FINAL_ROUND = frozenset({RoundState.MERGED, RoundState.ROLLED_BACK, RoundState.ABANDONED})
FINAL_JOB = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
