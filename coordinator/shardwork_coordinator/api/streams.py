"""A job's events as server-sent events: each with its number as id, so that a client that comes back misses none.

`Last-Event-ID`, or `after_sequence` in the query, says where to go on. A heartbeat at least every `BEAT_S` shows a dead
connection. Ends when the job is final and all was said.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from shardwork.v1 import jobs_pb2

from ..rpc.jobs import HIGHEST_SEQUENCE, get_job, watch_job
from .mapping import bad_field, to_json
from .routes import Call

#: a comment is sent so often where nothing else is
BEAT_S = 10
#: a client that lost the connection tries again after this long
RETRY_MS = 1_000


async def stream(call: Call) -> Response:
    request: jobs_pb2.WatchJobRequest = call.asked
    if last := call.request.headers.get("last-event-id", ""):
        request.after_sequence = _sequence(last)
    # refused with a status, before a stream has begun
    await get_job(jobs_pb2.GetJobRequest(job_id=request.job_id), call.caller, call.desk.jobs)
    return EventSourceResponse(_events(request, call), ping=BEAT_S)


async def _events(request: jobs_pb2.WatchJobRequest, call: Call) -> AsyncGenerator[ServerSentEvent, None]:
    state = ""
    async with aclosing(watch_job(request, call.caller, call.desk.jobs)) as answers:
        async for answer in answers:
            for event in answer.events:
                data = json.dumps(to_json(event), ensure_ascii=False)
                yield ServerSentEvent(data, event="job.event", id=str(event.sequence), retry=RETRY_MS)
            if answer.job.state != state:
                state = answer.job.state
                yield ServerSentEvent(json.dumps({"state": state}), event="job.state")
            if call.desk.closing.is_set():
                return
    # a client that asked for all of it must not come back for more
    yield ServerSentEvent("{}", event="job.end")
    await asyncio.sleep(0)


def _sequence(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= HIGHEST_SEQUENCE):
        raise bad_field("Last-Event-ID", "Send the id of the last event that came, a whole number.")
    return int(text)
