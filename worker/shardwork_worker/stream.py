"""The Attach stream: hello, heartbeats, and what the coordinator pushes; for as long as the worker lives.

Owns connecting again (for ever, with full jitter, to another coordinator when this one is gone) and nothing of what the
messages mean: they go to the desk, which is the agent. A lost stream does not touch the shard in hand; the next Hello
reports it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

import grpc
import grpc.aio

from shardwork.errors import NotAuthenticated, ShardworkError, Unreachable
from shardwork.session import Session, backoff_s
from shardwork.v1 import types_pb2, work_pb2
from shardwork.why import Why
from shardwork.wire import error_from_rpc, why_from_proto

#: until the coordinator says otherwise in its Welcome
HEARTBEAT_S = 10.0
#: a stream that does not welcome us within this time is given up
WELCOME_TIMEOUT_S = 30.0

Call = grpc.aio.StreamStreamCall[work_pb2.AttachRequest, work_pb2.AttachResponse]


class Desk(Protocol):
    """Where messages go, and where Hello and Heartbeat get their content."""

    def hello(self) -> work_pb2.Hello: ...
    def running(self) -> Sequence[work_pb2.LeaseStatus]: ...
    def holdings(self) -> work_pb2.Holdings | None:
        """What the cache holds, when that changed since it was asked last."""
        ...

    @property
    def accepting(self) -> bool: ...
    def on_welcome(self, worker_id: str) -> None: ...
    def on_offer(self, envelope: types_pb2.Envelope) -> None: ...
    def on_revoke(self, lease_id: str, why: Why) -> None: ...
    def on_settlement(self, settlement: work_pb2.Settlement) -> None: ...
    def on_idle(self, why: Why) -> None: ...
    def on_peers(self) -> None:
        """The session was told where the coordinators of its cluster answer."""
        ...

    def on_disconnect(self, why: Why) -> None: ...
    @property
    def is_away(self) -> bool: ...


class Stream:
    """`run` never returns; `nudge` sends a heartbeat at once, when something changed that the coordinator acts on."""

    def __init__(self, session: Session, desk: Desk) -> None:
        self._session = session
        self._desk = desk
        self._heartbeat_s = HEARTBEAT_S
        #: attempts since the last welcome
        self._failures = 0
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        self._nudged.set()

    async def run(self) -> None:
        while True:
            while self._desk.is_away:
                # another worker has our key; only the owner brings us back
                self._nudged.clear()
                await self._nudged.wait()
            error = await self._attach()
            self._desk.on_disconnect(error.why)
            if isinstance(error, NotAuthenticated):
                # a refusal shows again, with its reason, when the stream is opened next
                with contextlib.suppress(ShardworkError):
                    await self._session.renew()
            if isinstance(error, Unreachable) and await self._session.move():
                # all workers of a coordinator that ended come to the next one at the same moment
                self._failures = 0
            await asyncio.sleep(self._pause_s(error))
            self._failures += 1

    def _pause_s(self, error: ShardworkError) -> float:
        """Full jitter. Short where nothing answers: the channel paces the network itself, and a coordinator that is
        back waits only so long for the leases it gave out. Up to the session's cap where something refuses us."""
        most = 3 if isinstance(error, Unreachable) else 10
        return backoff_s(min(self._failures, most))

    async def _attach(self) -> ShardworkError:
        """One stream, from Hello to whatever ended it."""
        try:
            call = self._session.work.Attach(metadata=await self._session.metadata())
            try:
                await self._serve(call)
            finally:
                call.cancel()
        except grpc.aio.AioRpcError as error:
            return error_from_rpc(error, self._session.join.address)
        except ShardworkError as error:
            return error
        return Unreachable("stream.ended", "The coordinator ended the stream.")

    async def _serve(self, call: Call) -> None:
        """Hello, then heartbeats out and messages in until the stream ends."""
        await call.write(work_pb2.AttachRequest(hello=self._desk.hello()))
        await self._wait_welcome(call)
        beating = asyncio.create_task(self._beat(call))
        try:
            while (response := await _read(call)) is not None:
                self._deliver(response)
        finally:
            beating.cancel()
            # a heartbeat that could not be written: the reader tells the reason
            await asyncio.gather(beating, return_exceptions=True)

    async def _wait_welcome(self, call: Call) -> None:
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT_S):
                first = await _read(call)
        except TimeoutError:
            first = None
        if first is None or not first.HasField("welcome"):
            raise Unreachable("stream.no_welcome", "The coordinator did not welcome the worker.")
        self._failures = 0
        self._heartbeat_s = float(max(1, first.welcome.heartbeat_seconds))
        self._session.know(first.welcome.addresses)
        self._desk.on_peers()
        self._desk.on_welcome(first.welcome.worker_id)

    async def _beat(self, call: Call) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_s):
                    await self._nudged.wait()
            self._nudged.clear()
            heartbeat = work_pb2.Heartbeat(
                running=self._desk.running(), accepting=self._desk.accepting, holdings=self._desk.holdings()
            )
            await call.write(work_pb2.AttachRequest(heartbeat=heartbeat))

    def _deliver(self, response: work_pb2.AttachResponse) -> None:
        match response.WhichOneof("message"):
            case "offer":
                self._desk.on_offer(response.offer)
            case "revoke":
                self._desk.on_revoke(response.revoke.lease_id, why_from_proto(response.revoke.why))
            case "renewal":
                self._session.accept_token(response.renewal.token, response.renewal.expires_unix_ms)
            case "peers":
                self._session.know(response.peers.addresses)
                self._desk.on_peers()
            case "settlement":
                self._desk.on_settlement(response.settlement)
            case "idle":
                self._desk.on_idle(why_from_proto(response.idle.why))
            case _:
                # a newer coordinator may say more than this version knows
                pass


async def _read(call: Call) -> work_pb2.AttachResponse | None:
    """The next message, None at the stream's end. Raises AioRpcError when it broke."""
    response = await call.read()
    return response if isinstance(response, work_pb2.AttachResponse) else None
