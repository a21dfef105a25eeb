"""Which coordinator this worker joined last, and where its whole cluster answers: one small file in the state folder.

Owns the file. The app writes it at each join and whenever the coordinators of the cluster change, so that a worker
finds one that came after it joined, also when it is started again while the first one is down. Commands that ask a
coordinator read it.
"""

from __future__ import annotations

from pathlib import Path

from shardwork.errors import InvalidInput, NotFound
from shardwork.session import JoinLine

from ..log import say
from ..state_file import replace_durably

FILE_NAME = "joined"


class Joined:
    """The file: the join line as it was given, then a host:port a line."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._refused = False

    def was(self, join: JoinLine) -> bool:
        """Whether exactly this join line worked before."""
        return self._lines()[:1] == [join.text()]

    def known(self, join: JoinLine) -> JoinLine:
        """The join line with all that is known of its cluster: the coordinator that it names may have ended since."""
        before = self._read()
        return join.knowing(before.addresses) if before is not None and before.ca_sha256 == join.ca_sha256 else join

    def last(self) -> JoinLine:
        """The coordinator that was joined last. Raises NotFound "worker.never_joined"."""
        before = self._read()
        if before is None:
            raise NotFound(
                "worker.never_joined",
                "No worker with these folders has joined a coordinator yet.",
                next_step="Start one: shardwork-worker start JOIN.",
                folder=self._path.parent,
            )
        return before

    def note(self, given: JoinLine, now: JoinLine) -> None:
        """Writes it down if it is news. A full disk must not keep a worker from its shards."""
        lines = [given.text(), *now.addresses]
        # the order says who answers just now, and is no reason to write
        if lines[0] == next(iter(self._lines()), "") and set(lines[1:]) == set(self._lines()[1:]):
            return
        try:
            replace_durably(self._path, "\n".join(lines).encode())
            self._refused = False
        except OSError as error:
            if not self._refused:
                say(f"could not note which coordinator was joined: {error}")
            self._refused = True

    def _read(self) -> JoinLine | None:
        lines = self._lines()
        try:
            return JoinLine.parse(lines[0]).knowing(lines[1:]) if lines else None
        except InvalidInput:
            # damaged, or another version's
            return None

    def _lines(self) -> list[str]:
        try:
            return self._path.read_text(errors="replace").splitlines()
        except OSError:
            return []
