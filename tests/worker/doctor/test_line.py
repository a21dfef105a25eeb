"""The line to the coordinator: each part fails apart, with its own cause and fix; clock and bandwidth are measured."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from shardwork.config import Home
from shardwork.errors import LimitExceeded
from shardwork.session import JoinLine
from shardwork_worker.doctor import line
from shardwork_worker.doctor.finding import Finding, Health
from shardwork_worker.doctor.line import check_line

from ..fake_coordinator import FakeCoordinator

CA = "ab" * 32


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.find({"SHARDWORK_HOME": str(tmp_path / "home")})


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "MOST_BYTES", 8 << 20)


def health(findings: list[Finding]) -> dict[str, Health]:
    return {finding.check: finding.health for finding in findings}


async def test_a_sound_line_is_measured_and_told_part_by_part(coordinator: FakeCoordinator, home: Home) -> None:
    found = await check_line(coordinator.join, home)
    assert list(health(found).items())[:6] == [
        ("line-name", Health.OK),
        ("line-port", Health.OK),
        ("line-tls", Health.OK),
        ("coordinator", Health.OK),
        ("enrolment", Health.OK),
        ("clock", Health.OK),
    ]
    speed = found[-1]
    assert speed.check == "line-speed" and speed.why.evidence["down_a_second"].endswith("iB")
    assert home.key_path("worker").exists()
    assert 8 <= coordinator.calls["Measure"] <= 8 + line.CLOCK_TRIES + 2 * line.AT_ONCE


@pytest.mark.parametrize(("ahead_ms", "words"), [(90_000, "90 s behind"), (-3_600_000, "3600 s ahead of")])
async def test_a_clock_that_is_off_is_noted_with_how_to_set_it(
    ahead_ms: int, words: str, coordinator: FakeCoordinator, home: Home
) -> None:
    coordinator.clock_offset_ms = ahead_ms
    clock = next(one for one in await check_line(coordinator.join, home) if one.check == "clock")
    assert clock.health is Health.NOTE and words in clock.why.sentence and "set-ntp" in clock.why.next_step
    assert float(clock.why.evidence["offset_s"]) == pytest.approx(ahead_ms / 1000, abs=2)


async def test_a_name_that_nobody_knows_is_the_first_and_only_finding(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    (found,) = await check_line(JoinLine("nowhere.invalid", 7070, CA), home)
    assert (found.check, found.health) == ("line-name", Health.BAD) and "name server" in found.why.next_step


async def test_a_closed_port_and_a_silent_one_differ(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        found = await check_line(JoinLine("127.0.0.1", closed.getsockname()[1], CA), home)
    assert health(found) == {"line-name": Health.OK, "line-port": Health.BAD}
    assert "nothing listens" in found[-1].why.sentence

    async def silent(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio, "open_connection", silent)
    monkeypatch.setattr(line, "CONNECT_TIMEOUT_S", 0.01)
    found = await check_line(JoinLine("127.0.0.1", 1, CA), home)
    assert "firewall" in found[-1].why.sentence


async def test_something_else_behind_the_port_is_told_from_another_coordinator(
    coordinator: FakeCoordinator, home: Home
) -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        found = await check_line(JoinLine("127.0.0.1", server.sockets[0].getsockname()[1], CA), home)
    assert health(found)["line-tls"] is Health.BAD and found[-1].why.next_step
    other = await check_line(JoinLine("127.0.0.1", coordinator.port, CA), home)
    assert health(other)["line-tls"] is Health.OK
    assert other[-1].why.code == "authority.wrong_fingerprint" and other[-1].health is Health.BAD


async def test_a_refused_call_leaves_the_rest_standing(coordinator: FakeCoordinator, home: Home) -> None:
    coordinator.refuse["Measure"] = LimitExceeded("measure.too_much", "Too much.", next_step="Wait.")
    found = await check_line(coordinator.join, home)
    assert (found[-1].check, found[-1].health, found[-1].why.code) == ("line-speed", Health.NOTE, "measure.too_much")
    assert found[-2].health is Health.OK
