"""A crowd of strangers who connect and say nothing: workers, requesters and the web page go on."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from processes import BIN

from .world import World

pytestmark = pytest.mark.nightly
#: of the coordinator's process; the test's own is larger
FILES = 512


def is_healthy(web: str) -> bool:
    try:
        with urllib.request.urlopen(f"{web}/healthz", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize("door", ["grpc", "web"])
def test_silent_connections_do_not_end_a_coordinator_with_few_files(tmp_path: Path, door: str) -> None:
    world = World(tmp_path)
    serve = (
        f"ulimit -n {FILES} && exec '{BIN}/shardwork-coordinator' serve --listen 127.0.0.1:0 --data-dir '{tmp_path}/c'"
    )
    with (tmp_path / "log").open("w") as log, contextlib.ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                ["bash", "-c", serve],
                env=world.processes.environment("coordinator"),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        )
        stack.callback(process.terminate)
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        world.succeed("login", told["join"])
        address: str = told["join"] if door == "grpc" else told["web"]
        host, _, port = urlsplit(address).netloc.partition(":")
        for _ in range(2 * FILES):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=10))

        # some find the door shut until the silent ones have been let go
        world.until(lambda: world.run("wallet", "balance").exit_code == 0, "a requester to be let in")
        world.until(lambda: is_healthy(told["web"]), "the web server to answer")
        events = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
        assert "files.few" in events and "loop.exception" not in events
