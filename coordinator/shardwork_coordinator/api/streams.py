"""A job's events as server-sent events: each with its number as id, so that a client that comes back misses none.

`Last-Event-ID`, or `after_sequence` in the query, says where to go on. A heartbeat at least every `BEAT_S` shows a dead
connection. Ends when the job is final and all was said, and when the key or its owner was revoked: whoever comes again
is told so with a status.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from shardwork.v1 import jobs_pb2

from ..rpc.jobs import HIGHEST_SEQUENCE, watch_job
from .mapping import bad_field, to_json
from .routes import Call

Watched = jobs_pb2.WatchJobResponse
#: a comment is sent so often where nothing else is
BEAT_S = 10
#: a client that lost the connection tries again after this long
RETRY_MS = 1_000


async def stream(call: Call) -> Response:
    request: jobs_pb2.WatchJobRequest = call.asked
    if last := call.request.headers.get("last-event-id", ""):
        request.after_sequence = _sequence(last)
    answers = watch_job(request, call.caller, call.desk.jobs)
    # refused with a status, before a stream has begun
    first = await anext(answers)
    # the beginning of an id may mean another job later
    request.job_id = first.job.id
    return EventSourceResponse(_events(first, answers, call), ping=BEAT_S)


async def _events(
    first: Watched, answers: AsyncGenerator[Watched, None], call: Call
) -> AsyncGenerator[ServerSentEvent, None]:
    state, answer = "", first
    async with aclosing(answers):
        while True:
            for event in answer.events:
                data = json.dumps(to_json(event), ensure_ascii=False)
                yield ServerSentEvent(data, event="job.event", id=str(event.sequence), retry=RETRY_MS)
            if answer.job.state != state:
                state = answer.job.state
                yield ServerSentEvent(json.dumps({"state": state}), event="job.state")
            if answer.final:
                # a client that asked for all of it must not come back for more
                yield ServerSentEvent("{}", event="job.end")
                return
            if call.desk.closing.is_set() or not await _is_welcome(call):
                return
            answer = await anext(answers)


async def _is_welcome(call: Call) -> bool:
    return await call.desk.gate.is_still_good(call.request.headers.get("authorization", ""))


def _sequence(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= HIGHEST_SEQUENCE):
        raise bad_field("Last-Event-ID", "Send the id of the last event that came, a whole number.")
    return int(text)
