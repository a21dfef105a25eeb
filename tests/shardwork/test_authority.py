"""Join lines: what they may look like, and an exact reason for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwork.errors import InvalidInput
from shardwork.session import JoinLine

CA = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "host", "port", "address"),
    [
        (f"shardwork://example.org:7700?ca={CA}", "example.org", 7700, "example.org:7700"),
        (f"shardwork://127.0.0.1:1?ca={CA}", "127.0.0.1", 1, "127.0.0.1:1"),
        (f"shardwork://[2001:db8::1]:65535?ca={CA}", "2001:db8::1", 65535, "[2001:db8::1]:65535"),
        (f"  shardwork://host:7700/?ca={CA.upper()}\n", "host", 7700, "host:7700"),
    ],
)
def test_a_join_line_is_read(text: str, host: str, port: int, address: str) -> None:
    join = JoinLine.parse(text)
    assert (join.host, join.port, join.address, join.ca_sha256) == (host, port, address, CA)
    assert JoinLine.parse(join.text()) == join


@pytest.mark.parametrize(
    ("listed", "addresses"),
    [
        ("a:1,b:2", ("a:1", "b:2")),
        ("a:1,[::2]:2,a:1", ("a:1", "[::2]:2")),
        ("[::1]:1,[::2]:2/", ("[::1]:1", "[::2]:2")),
    ],
)
def test_a_join_line_may_name_several_coordinators(listed: str, addresses: tuple[str, ...]) -> None:
    join = JoinLine.parse(f"shardwork://{listed}?ca={CA}")
    assert join.addresses == addresses
    assert JoinLine.parse(join.text()) == join
    assert join.at(addresses[1]).addresses == (addresses[1], addresses[0])


def test_addresses_that_a_coordinator_tells_are_added_and_nonsense_is_left_out() -> None:
    join = JoinLine.parse(f"shardwork://a:1?ca={CA}")
    assert join.knowing(["a:1", "b:2", "", "c", "d:99999", "u@e:5", "f:6/g", "x y:1"]).addresses == ("a:1", "b:2")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "join.wrong_scheme"),
        (f"https://host:1?ca={CA}", "join.wrong_scheme"),
        (f"host:7700?ca={CA}", "join.wrong_scheme"),
        (f"shardwork://?ca={CA}", "join.bad_address"),
        (f"shardwork://:7700?ca={CA}", "join.bad_address"),
        (f"shardwork://user@host:7700?ca={CA}", "join.bad_address"),
        (f"shardwork://[::1:7700?ca={CA}", "join.bad_address"),
        (f"shardwork://host:port?ca={CA}", "join.bad_address"),
        (f"shardwork://host:65536?ca={CA}", "join.bad_address"),
        (f"shardwork://host?ca={CA}", "join.missing_port"),
        (f"shardwork://host:1,?ca={CA}", "join.bad_address"),
        (f"shardwork://host:1,other?ca={CA}", "join.missing_port"),
        (f"shardwork://{','.join(f'h{n}:1' for n in range(17))}?ca={CA}", "join.bad_address"),
        (f"shardwork://host:0?ca={CA}", "join.missing_port"),
        (f"shardwork://host:7700/path?ca={CA}", "join.unknown_part"),
        (f"shardwork://host:7700?ca={CA}#x", "join.unknown_part"),
        (f"shardwork://host:7700?ca={CA}&token=x", "join.unknown_part"),
        ("shardwork://host:7700", "join.missing_ca"),
        (f"shardwork://host:7700?ca={CA}&ca={CA}", "join.missing_ca"),
        (f"shardwork://host:7700?ca={CA[1:]}", "join.bad_ca"),
        (f"shardwork://host:7700?ca={CA[1:]}g", "join.bad_ca"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text: str, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        JoinLine.parse(text)
    assert caught.value.code == code
    assert caught.value.exit_code == 3
    assert "shardwork://HOST:PORT?ca=" in caught.value.why.next_step


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    for candidate in (text, f"shardwork://{text}", f"shardwork://host:1?{text}"):
        try:
            JoinLine.parse(candidate)
        except InvalidInput as error:
            assert error.code.startswith("join.")
