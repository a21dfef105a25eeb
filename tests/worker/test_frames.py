"""Frames between agent and child: whole messages or a clear refusal, blocking and on an event loop."""

from __future__ import annotations

import asyncio
import io

import pytest

from shardwork.errors import Corrupt
from shardwork_worker.frames import MAX_FRAME_BYTES, encode, read_frame, read_frame_from, write_frame

MESSAGE = {"type": "progress", "lease_id": "lease-1", "fraction": 0.5, "loss": 1.25, "note": "schön"}


class Dripping(io.RawIOBase):
    """A pipe that gives one byte at a time, as an unbuffered one may."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return self._data.read(min(size, 1))


def test_messages_come_back_in_order_and_the_end_is_none() -> None:
    pipe = io.BytesIO()
    write_frame(pipe, MESSAGE)
    write_frame(pipe, {"type": "exit"})
    pipe.seek(0)
    assert [read_frame(pipe), read_frame(pipe), read_frame(pipe)] == [MESSAGE, {"type": "exit"}, None]


def test_a_frame_is_read_from_a_pipe_that_gives_single_bytes() -> None:
    assert read_frame(Dripping(encode(MESSAGE))) == MESSAGE  # type: ignore[arg-type]


@pytest.mark.parametrize("kept", [2, 4, 20])
def test_a_pipe_that_closes_inside_a_frame_is_refused(kept: int) -> None:
    with pytest.raises(Corrupt, match="closed inside a frame"):
        read_frame(io.BytesIO(encode(MESSAGE)[:kept]))


def test_a_stray_print_in_the_pipe_is_refused_and_not_waited_for() -> None:
    with pytest.raises(Corrupt) as caught:
        read_frame(io.BytesIO(b"Loading weights: 100%"))
    assert caught.value.code == "frame.too_large"


@pytest.mark.parametrize(
    ("body", "code"), [(b"{no", "frame.not_json"), (b"[1]", "frame.no_type"), (b"{}", "frame.no_type")]
)
def test_a_body_that_is_no_message_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(Corrupt) as caught:
        read_frame(io.BytesIO(len(body).to_bytes(4, "big") + body))
    assert caught.value.code == code


def test_a_message_over_the_limit_is_refused_before_it_is_sent() -> None:
    with pytest.raises(Corrupt, match="too large"):
        encode({"type": "run", "order_json": "x" * MAX_FRAME_BYTES})


async def test_the_event_loop_reads_the_same_frames() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(encode(MESSAGE) + encode({"type": "exit"}))
    reader.feed_eof()
    found = [await read_frame_from(reader), await read_frame_from(reader), await read_frame_from(reader)]
    assert found == [MESSAGE, {"type": "exit"}, None]


@pytest.mark.parametrize("kept", [3, 20])
async def test_the_event_loop_refuses_a_cut_frame(kept: int) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(encode(MESSAGE)[:kept])
    reader.feed_eof()
    with pytest.raises(Corrupt, match="closed inside a frame"):
        await read_frame_from(reader)
