"""Connection: one browser's or program's line to the web server, which may not be silent for long.

uvicorn closes a connection that is idle after an answer. It waits for ever for the first byte, for the rest of a head
and for the rest of a body; a few thousand such connections cost nobody anything and are the end of a server. Used by
`server`.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

#: from the first moment to the end of a request's head
HEAD_S = 20.0
#: between two pieces of a body
BODY_S = 60.0


class Connection(H11Protocol):
    """h11 rather than httptools: it bounds the size of a head."""

    head_s: ClassVar[float] = HEAD_S
    body_s: ClassVar[float] = BODY_S
    _end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """The clock runs while the other side owes us something; each piece of a body sets it back."""
        owed = self.conn.their_state
        if owed is h11.SEND_BODY:
            self._stop_watching()
            self._end = self.loop.call_later(self.body_s, self._too_slow)
        elif owed is not h11.IDLE:
            self._stop_watching()
        elif self._end is None:
            self._end = self.loop.call_later(self.head_s, self._too_slow)

    def _stop_watching(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _too_slow(self) -> None:
        self._end = None
        if self.flow.read_paused:
            # it is we who do not read on
            self._watch()
        else:
            self.transport.abort()
