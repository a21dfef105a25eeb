"""Addresses that can't be served on are refused with a next step, not with a traceback."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from shardwork.errors import InvalidInput
from shardwork_coordinator.app import serving
from shardwork_coordinator.settings import Settings


async def refusal(folder: Path, **addresses: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        async with serving(Settings(data_dir=folder, **addresses)):  # type: ignore[arg-type]
            pass
    assert caught.value.why.next_step
    return caught.value.code


@pytest.mark.parametrize("listen", ["127.0.0.1:notaport", "127.0.0.1:99999", "nonsense"])
async def test_a_malformed_listen_address_is_refused(tmp_path: Path, listen: str) -> None:
    assert await refusal(tmp_path, listen=listen) in (
        "serve.cannot_listen",
        "serve.no_advertise",
        "payments.not_chosen",
    )


async def test_a_taken_port_is_refused_on_both_sides(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert await refusal(tmp_path / "grpc", listen=address) == "serve.cannot_listen"
        assert await refusal(tmp_path / "web", web=address) == "web.port_taken"


@pytest.mark.parametrize("web", ["127.0.0.1:notaport", "127.0.0.1:99999"])
async def test_a_malformed_web_port_is_refused(tmp_path: Path, web: str) -> None:
    assert await refusal(tmp_path, web=web) == "web.port_taken"


async def test_a_web_host_that_is_no_loopback_address_is_refused(tmp_path: Path) -> None:
    assert await refusal(tmp_path, web="nonsense:0") == "web.not_loopback"
