"""The line to a coordinator: name, port, TLS, fingerprint, enrolment, clock, bandwidth; each apart, in this order.

Owns these checks; the first that fails ends them, because the next ones would fail for the same reason. Called by
`examination` when a join line is given.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass

from shardwork.config import Home
from shardwork.errors import ShardworkError
from shardwork.identity.authority import JoinLine, fetch_ca
from shardwork.identity.keys import load_or_create
from shardwork.identity.role import Role
from shardwork.session import Session
from shardwork.v1 import work_pb2

from ..limits.size import show
from .finding import Finding, Health, finding

CONNECT_TIMEOUT_S = 10.0
#: bytes of one call, calls at the same time, and what is measured with at most each way, in bytes and seconds
CALL_BYTES, AT_ONCE = 1 << 20, 4
MOST_BYTES, MOST_S = 24 << 20, 3.0
CLOCK_TRIES = 5
#: a clock that is off by more shows wrong hours and dates; leases do not depend on it
OFF_S = 5.0
SLOW_BYTES_PER_S = 1 << 20
#: the code that says that TLS is not what is wrong
WRONG_FINGERPRINT = "authority.wrong_fingerprint"


async def check_line(join: JoinLine, home: Home) -> list[Finding]:
    findings: list[Finding] = []
    for check in (_name, _port):
        findings.append(await check(join))
        if findings[-1].health is Health.BAD:
            return findings
    findings += await _identity(join)
    if findings[-1].health is not Health.BAD:
        findings += await _enrolled(join, home)
    return findings


async def _name(join: JoinLine) -> Finding:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(join.host, join.port, type=socket.SOCK_STREAM)
    except OSError as error:
        sentence = f"The name {join.host} is not known here."
        next_step = "Check the join line and this machine's name server; try the same name in a browser."
        return finding("line-name", Health.BAD, sentence, next_step, host=join.host, error=error.strerror or error)
    addresses = sorted({str(each[4][0]) for each in found})
    return finding("line-name", Health.OK, "The coordinator's name has an address.", addresses=", ".join(addresses))


async def _port(join: JoinLine) -> Finding:
    started_s = time.monotonic()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(join.host, join.port)
    except TimeoutError:
        sentence = f"Nothing answers at {join.address}: no refusal either, as when a firewall drops what is sent."
        next_step = "Allow outgoing TCP to that port here and in your network; ask the operator whether it is up."
        return finding("line-port", Health.BAD, sentence, next_step, address=join.address, waited_s=CONNECT_TIMEOUT_S)
    except OSError as error:
        sentence = f"{join.address} refuses connections: the machine is there, and nothing listens on the port."
        next_step = "Ask the operator whether the coordinator runs, and for the current join line."
        return finding(
            "line-port", Health.BAD, sentence, next_step, address=join.address, error=error.strerror or error
        )
    writer.transport.abort()
    took_ms = round((time.monotonic() - started_s) * 1000)
    return finding("line-port", Health.OK, "The port is open.", address=join.address, took_ms=took_ms)


async def _identity(join: JoinLine) -> list[Finding]:
    """TLS, then who is behind it."""
    encrypted = finding("line-tls", Health.OK, "TLS is spoken there.", address=join.address)
    try:
        await fetch_ca(join)
    except ShardworkError as error:
        if error.code == WRONG_FINGERPRINT:
            return [encrypted, Finding("coordinator", Health.BAD, error.why)]
        return [Finding("line-tls", Health.BAD, error.why)]
    sentence = "The coordinator answers and is the one that the join line names."
    return [encrypted, finding("coordinator", Health.OK, sentence, address=join.address, fingerprint=join.ca_sha256)]


async def _enrolled(join: JoinLine, home: Home) -> list[Finding]:
    try:
        key = load_or_create(home.key_path("worker"))
        session = await Session.open(join, key, Role.WORKER)
    except ShardworkError as error:
        return [Finding("enrolment", Health.BAD, error.why)]
    async with session:
        sentence = "The coordinator takes this worker's key."
        findings = [finding("enrolment", Health.OK, sentence, worker=session.party_id)]
        try:
            return [*findings, await _clock(session), await _bandwidth(session)]
        except ShardworkError as error:
            # an older coordinator knows no such call; a busy one carries no more this minute
            return [*findings, Finding("line-speed", Health.NOTE, error.why)]


async def _clock(session: Session) -> Finding:
    """The offset by the answer that came back soonest: its error is at most half of the way there and back."""
    samples = [await _offset(session) for _ in range(CLOCK_TRIES)]
    offset_s, way_s = min(samples, key=lambda sample: sample[1])
    evidence = {"offset_s": f"{offset_s:.3f}", "there_and_back_ms": f"{way_s * 1000:.1f}"}
    if abs(offset_s) > OFF_S:
        word = "behind" if offset_s > 0 else "ahead of"
        sentence = f"This machine's clock is {abs(offset_s):.0f} s {word} the coordinator's."
        next_step = "Shards do not mind, but dates and hours are wrong: sudo timedatectl set-ntp true"
        return finding("clock", Health.NOTE, sentence, next_step, **evidence)
    return finding("clock", Health.OK, "The clocks agree.", **evidence)


async def _offset(session: Session) -> tuple[float, float]:
    """(seconds that the coordinator is ahead, seconds there and back)."""
    before_s, started_s = time.time(), time.monotonic()
    answer = await session.call(session.work.Measure, work_pb2.MeasureRequest(), retries=0)
    way_s = time.monotonic() - started_s
    return answer.now_unix_ms / 1000 - (before_s + way_s / 2), way_s


async def _bandwidth(session: Session) -> Finding:
    down = await Transfer(session, work_pb2.MeasureRequest(answer_bytes=CALL_BYTES)).bytes_per_s()
    up = await Transfer(session, work_pb2.MeasureRequest(payload=bytes(CALL_BYTES))).bytes_per_s()
    evidence = {"down_a_second": show(down), "up_a_second": show(up)}
    if min(down, up) < SLOW_BYTES_PER_S:
        sentence = "The line is slow: large inputs and outputs will take longer than computing."
        next_step = "Take small shards only with input_bytes, or use a better line."
        return finding("line-speed", Health.NOTE, sentence, next_step, **evidence)
    return finding("line-speed", Health.OK, "The line to the coordinator was measured.", **evidence)


@dataclass(slots=True)
class Transfer:
    """One way: a few calls at a time, so that waiting for answers does not count."""

    session: Session
    request: work_pb2.MeasureRequest
    _calls: int = 0

    async def bytes_per_s(self) -> float:
        started_s = time.monotonic()
        await asyncio.gather(*(self._carry(started_s + MOST_S) for _ in range(AT_ONCE)))
        return self._calls * CALL_BYTES / max(time.monotonic() - started_s, 1e-6)

    async def _carry(self, until_s: float) -> None:
        while True:
            await self.session.call(self.session.work.Measure, self.request, retries=0)
            self._calls += 1
            if time.monotonic() >= until_s or self._calls * CALL_BYTES > MOST_BYTES - AT_ONCE * CALL_BYTES:
                return
