"""Keys: created once, private, damaged or loose files refused, unusable public keys refused."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shardwork.errors import InvalidInput, NotAllowed
from shardwork.identity.keys import SigningKey, check_public_key, is_signed, load_or_create


def test_a_key_is_made_once_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys" / "worker.key"
    assert load_or_create(path).public_key == load_or_create(path).public_key
    assert os.listdir(path.parent) == ["worker.key"]


def test_a_new_key_is_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "worker.key"
    load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_new_key_is_private_under_an_open_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load_or_create(tmp_path / "keys" / "worker.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys" / "worker.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o666])
def test_a_key_that_others_may_open_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys" / "worker.key"
    load_or_create(path)
    path.chmod(mode)
    with pytest.raises(NotAllowed) as caught:
        load_or_create(path)
    assert caught.value.code == "key.loose_mode"
    assert caught.value.why.next_step == f"Run: chmod 600 {path}"
    assert caught.value.why.evidence["mode"] == f"{mode:04o}"


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "worker.key"
    load_or_create(path)
    path.parent.chmod(0o755)
    with pytest.raises(NotAllowed) as caught:
        load_or_create(path)
    assert caught.value.why.next_step == f"Run: chmod 700 {path.parent}"


def test_no_key_is_made_in_a_loose_folder(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o755)
    with pytest.raises(NotAllowed, match="chmod 700"):
        load_or_create(folder / "worker.key")
    assert os.listdir(folder) == []


def test_a_link_in_the_keys_place_is_refused(tmp_path: Path) -> None:
    real = tmp_path / "keys" / "real.key"
    load_or_create(real)
    link = real.with_name("link.key")
    link.symlink_to(real)
    with pytest.raises(InvalidInput) as caught:
        load_or_create(link)
    assert caught.value.code == "key.not_a_file"


def test_a_dangling_link_is_refused_and_its_target_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    (folder / "link.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput):
        load_or_create(folder / "link.key")
    assert not (tmp_path / "elsewhere").exists()


def test_a_pipe_in_the_keys_place_is_refused_without_waiting(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / "worker.key", 0o600)
    with pytest.raises(InvalidInput) as caught:
        load_or_create(folder / "worker.key")
    assert caught.value.code == "key.not_a_file"


@pytest.mark.parametrize("text", [b"", b"00" * 31, b"00" * 33, b"zz" * 32, b"\xff" * 64, b"00" * 32 + b"\n00"])
def test_a_damaged_key_is_refused_and_left_alone(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "keys" / "worker.key"
    load_or_create(path)
    path.write_bytes(text)
    with pytest.raises(InvalidInput) as caught:
        load_or_create(path)
    assert caught.value.code == "key.damaged"
    assert path.read_bytes() == text


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "worker.key"
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(load_or_create, [path] * 32))
    assert len({key.public_key for key in keys}) == 1
    assert os.listdir(path.parent) == ["worker.key"]


def test_the_secret_is_not_in_the_repr() -> None:
    key = SigningKey.generate()
    assert key.to_text() not in repr(key)
    assert key.public_key.hex() in repr(key)


def test_a_signature_follows_rfc_8032() -> None:
    # RFC 8032 section 7.1, test 3
    key = SigningKey(bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"))
    assert key.public_key.hex() == "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
    assert key.sign(b"\xaf\x82").hex() == (
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )


def test_a_signature_holds_for_its_message_and_key_only() -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    signature = key.sign(b"message")
    assert is_signed(key.public_key, b"message", signature)
    assert not is_signed(key.public_key, b"massage", signature)
    assert not is_signed(other.public_key, b"message", signature)
    assert not is_signed(key.public_key, b"message", signature[:63])


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_public_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_public_key(b"\x09" * length)
    assert caught.value.code == "key.invalid_point"
