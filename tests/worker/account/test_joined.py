"""What a worker remembers of the coordinators that it joined."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardwork.errors import NotFound
from shardwork.session import JoinLine
from shardwork.v1 import work_pb2
from shardwork_worker.account.joined import Joined

from ..conftest import Workers
from ..fake_coordinator import FakeCoordinator

CA = "0" * 64
FIRST = JoinLine("first.example", 7070, CA)


async def test_a_coordinator_that_came_after_the_worker_joined_is_known_after_a_restart(
    coordinator: FakeCoordinator, workers: Workers
) -> None:
    await workers.here()
    joined = Joined(workers.home / "state" / "worker")
    assert joined.last().addresses == (coordinator.join.address,)
    peers = work_pb2.Peers(addresses=[coordinator.join.address, "second.example:7070"])
    coordinator.push(work_pb2.AttachResponse(peers=peers))
    await coordinator.wait_until(lambda: "second.example:7070" in joined.last().addresses)
    assert joined.was(coordinator.join)
    assert "second.example:7070" in joined.known(coordinator.join).addresses


def test_what_is_known_of_a_cluster_serves_any_of_its_join_lines_and_no_other(tmp_path: Path) -> None:
    joined = Joined(tmp_path)
    joined.note(FIRST, FIRST.knowing(["second.example:7070"]))
    third = JoinLine("third.example", 7070, CA)
    assert joined.known(third).addresses == ("third.example:7070", "first.example:7070", "second.example:7070")
    assert joined.was(FIRST) and not joined.was(third)
    stranger = JoinLine("third.example", 7070, "1" * 64)
    assert joined.known(stranger) == stranger


def test_nothing_or_nonsense_in_the_file_is_no_coordinator(tmp_path: Path) -> None:
    joined = Joined(tmp_path)
    for content in (None, b"", b"\xff\xfe nonsense"):
        if content is not None:
            (tmp_path / "joined").write_bytes(content)
        assert joined.known(FIRST) == FIRST and not joined.was(FIRST)
        with pytest.raises(NotFound, match="has joined a coordinator yet"):
            joined.last()


def test_only_news_is_written(tmp_path: Path) -> None:
    joined, cluster = Joined(tmp_path), FIRST.knowing(["second.example:7070"])
    joined.note(FIRST, cluster)
    before = (tmp_path / "joined").stat().st_ino
    joined.note(FIRST, cluster.at("second.example:7070"))
    assert (tmp_path / "joined").stat().st_ino == before
    joined.note(FIRST, cluster.knowing(["third.example:7070"]))
    assert "third.example:7070" in joined.last().addresses
