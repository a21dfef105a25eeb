"""Addresses that can't be served on are refused with a next step, not with a traceback."""

from __future__ import annotations

import socket
import sqlite3
from pathlib import Path

import pytest

from shardwork.errors import Internal, ShardworkError
from shardwork_coordinator import cli
from shardwork_coordinator.app import serving
from shardwork_coordinator.settings import Settings


async def refusal(folder: Path, **addresses: str) -> str:
    with pytest.raises(ShardworkError) as caught:
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
    assert await refusal(tmp_path, web=web) == "web.bad_address"


async def test_a_web_host_that_is_no_address_of_this_machine_is_refused(tmp_path: Path) -> None:
    assert await refusal(tmp_path, web="nonsense:0") == "web.port_taken"


async def test_a_database_that_is_damaged_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "coordinator.db").write_bytes(b"no database, and long enough to have a header" * 100)
    before = (tmp_path / "coordinator.db").read_bytes()
    assert await refusal(tmp_path) == "store.unusable"
    assert (tmp_path / "coordinator.db").read_bytes() == before


async def test_a_lost_database_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    async with serving(Settings(data_dir=tmp_path)):
        pass
    books = tmp_path / "coordinator.db"
    kept = books.read_bytes()
    books.unlink()
    assert await refusal(tmp_path) == "store.lost"
    books.touch()
    assert await refusal(tmp_path) == "store.lost"
    assert books.read_bytes() == b""
    books.write_bytes(kept)
    async with serving(Settings(data_dir=tmp_path)) as running:
        assert running.join


def test_the_books_of_a_folder_without_any_are_not_called_balanced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["shardwork-coordinator", "ledger", "check", "--data-dir", str(tmp_path / "typo")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 4 and "[store.not_here]" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


async def test_a_coordinator_whose_store_refuses_changes_ends_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "STORE_CHECK_S", 0.01)

    def full(_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("shardwork_coordinator.store.sql._FileSession.commit", full)
    with pytest.raises(Internal) as ended:
        await cli._serve(Settings(data_dir=tmp_path))  # pyright: ignore[reportPrivateUsage]
    assert ended.value.code.startswith("store.")


async def test_a_store_that_was_encrypted_with_a_key_that_is_gone_is_refused(tmp_path: Path) -> None:
    async with serving(Settings(data_dir=tmp_path, encrypt_at_rest=True)):
        pass
    key = tmp_path / "keys" / "storage.key"
    kept = key.read_bytes()
    key.unlink()
    assert await refusal(tmp_path) == "storage.wrong_key"
    key.write_bytes(b"5a" * 32)
    key.chmod(0o600)
    assert await refusal(tmp_path) == "storage.wrong_key"
    key.write_bytes(b"no key")
    assert await refusal(tmp_path) == "storage.bad_key_file"
    key.write_bytes(kept)
    async with serving(Settings(data_dir=tmp_path)):
        pass
