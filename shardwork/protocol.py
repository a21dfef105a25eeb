"""The protocol's constants and the choice of a version both sides speak: N and N-1.

Pure. Used by `shardwork.session` and the coordinator's enrolment; nothing else may state a version or a lifetime.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from .errors import Conflict

#: versions this software speaks, newest first; N-1 joins when there is an N = 2
PROTOCOL_VERSIONS: tuple[int, ...] = (1,)
#: the name in every coordinator's certificate, whatever its address
COORDINATOR_NAME = "coordinator.shardwork"
#: how long a token admits its bearer
TOKEN_LIFETIME_S = 15 * 60
#: gRPC messages above this are refused on both sides
MAX_MESSAGE_BYTES = 4 * 1024 * 1024

ENROLMENT_TYPE = "shardwork.enrolment.v1"


def software_version() -> str:
    """The installed version of Shardwork, "0" when it runs from a bare source tree."""
    try:
        return version("shardwork")
    except PackageNotFoundError:
        return "0"


def negotiate(client: Iterable[int], coordinator: Iterable[int]) -> int:
    """The newest version both speak. Raises Conflict "protocol.no_common_version", which names both lists."""
    ours, theirs = set(client), set(coordinator)
    common = ours & theirs
    if common:
        return max(common)
    older = "client" if max(ours, default=0) < max(theirs, default=0) else "coordinator"
    raise Conflict(
        "protocol.no_common_version",
        f"The client speaks protocol {_listed(ours)} and the coordinator {_listed(theirs)}.",
        next_step=f"Upgrade Shardwork on the {older}'s machine.",
        client=_listed(ours),
        coordinator=_listed(theirs),
    )


def _listed(versions: set[int]) -> str:
    return ", ".join(str(number) for number in sorted(versions)) or "none"
