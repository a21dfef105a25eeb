"""Open files: how many this process may have, and which share of them strangers' connections may take.

A shell gives 1,024, which a thousand workers use up, and so do a thousand connections on which nobody says a word; then
no file of the store can be opened either. Called by the app's composition root when it starts, and by a merge of many
deltas.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass

#: as many as the systemd unit asks for
WANTED = 1 << 16
#: with fewer than this a thousand workers do not fit
FEW = 4096


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """What one process may have open."""

    most: int

    @property
    def grpc(self) -> int:
        """Connections of workers and requesters."""
        return self.most * 3 // 5

    @property
    def web(self) -> int:
        """Connections of browsers, of the HTTP API and of live pages."""
        return self.most // 5

    @property
    def are_few(self) -> bool:
        return self.most < FEW

    @classmethod
    def allow(cls, wanted: int = WANTED) -> OpenFiles:
        """Raises this process's own limit as far as it may; says what it is then."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= most:
            return cls(wanted if soft == resource.RLIM_INFINITY else soft)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (ValueError, OSError):  # a system that says "no limit" and has one
            return cls(soft)
        return cls(most)
