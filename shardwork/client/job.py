"""AsyncJob: one job of this requester, to follow, steer and collect.

What only some methods need (pages of a notebook, transfers, trackers) is imported by those.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from pathlib import Path

from ..errors import ShardworkError
from ..money import whole_sats
from ..session import Session
from ..v1 import jobs_pb2
from ..why import Why
from ..wire import why_from_proto
from . import calls, received
from .progress import OnProgress
from .results import Change, ControlCost, Download, Event, JobStatus, LogLine, Report, SamplesPage
from .settings import Access
from .waiting import judge, progress_of

OnLost = Callable[[ShardworkError, int], None]


class AsyncJob:
    """Made by `AsyncClient.submit`, `job` and `jobs`. It does not follow by itself: ask `status`, `watch` or `wait`."""

    def __init__(
        self,
        session: Callable[[], Awaitable[Session]],
        access: Callable[[], Access],
        status: JobStatus,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._session = session
        self._access = access
        self._on_progress = on_progress
        self.last = status
        #: how to look at what a watch told the trackers, one line each
        self.tracked_in: list[str] = []

    @property
    def id(self) -> str:
        return self.last.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.last.name!r} {self.last.state}>"

    def _repr_html_(self) -> str:
        from .display.notebook import job_html

        return job_html(self.last)

    async def status(self) -> JobStatus:
        """The job as it is now; kept as `last`."""
        return self._took(await calls.job(await self._session(), self.id))

    async def why(self) -> Why | None:
        """Why it waits, rests or failed: code, sentence, evidence, next step; None when nothing is in its way."""
        return (await self.status()).why

    async def report(self) -> Report:
        """Rounds, workers, payments and money, and samples of what each stage published."""
        from .outputs import samples

        session = await self._session()
        answer = await calls.report(session, self.id)
        taken = await samples.fetch(session, self._took(answer.job), self._access().home.cache_dir)
        return received.report(answer, taken)

    async def events(self, *, after_sequence: int = 0, last: int | None = None) -> AsyncGenerator[Event, None]:
        """Everything that happened so far after `after_sequence`, oldest first; with `last`, only so many of the
        newest. Raises InvalidInput "logs.bad_count"."""
        if last is not None:
            for event in await calls.log(await self._session(), self.id, last, details=False):
                if event.sequence > after_sequence:
                    yield received.event(event)
            return
        async for event in calls.events(await self._session(), self.id, after_sequence=max(after_sequence, 0)):
            yield received.event(event)

    async def logs(
        self, *, last: int = 50, follow: bool = False, on_lost: OnLost | None = None
    ) -> AsyncGenerator[LogLine, None]:
        """The last lines of the job's log, oldest first: what happened to it and to each attempt at a shard, in words.

        `last`: 0 to 10,000. `follow` goes on with new lines until the job is final, as `watch` does. Raises
        InvalidInput "logs.bad_count".
        """
        seen = 0
        for event in await calls.log(await self._session(), self.id, last if last or not follow else 1):
            seen = event.sequence
            if last:
                yield received.log_line(event)
        if not follow:
            return
        async with aclosing(self._answers(seen, details=True, on_lost=on_lost)) as answers:
            async for answer in answers:
                self.last = received.change(answer).status or self.last
                for event in answer.events:
                    if not calls.is_said_already(event):
                        yield received.log_line(event)

    async def watch(
        self,
        *,
        after_sequence: int = 0,
        on_lost: OnLost | None = None,
        report_to: str | Iterable[str] | None = None,
    ) -> AsyncGenerator[Change, None]:
        """Every change until the job is final, across restarts of the coordinator; no event comes twice.

        `on_lost` hears of each failed attempt to reach the coordinator and its number. `report_to`: trackers that are
        told each round's numbers once, instead of those that the job file named; "none": no tracker. Raises Unreachable
        after ten minutes without an answer, and InvalidInput "tracking.…". Leaving the loop leaves the job running.
        """
        from .tracking.follow import Following

        state_dir = self._access().home.state_dir
        with contextlib.closing(Following(self.id, report_to, state_dir, self._bare_report)) as tracked:
            async with aclosing(self._answers(after_sequence, details=False, on_lost=on_lost)) as answers:
                async for answer in answers:
                    change = received.change(answer)
                    self.last = change.status or self.last
                    await tracked.hear(self.last)
                    self.tracked_in = tracked.shown_by
                    yield change

    async def _bare_report(self) -> Report:
        return received.report(await calls.report(await self._session(), self.id))

    async def _answers(
        self, after_sequence: int, *, details: bool, on_lost: OnLost | None
    ) -> AsyncGenerator[jobs_pb2.WatchJobResponse, None]:
        session, heard = await self._session(), on_lost or _ignore
        answers = calls.watch(session, self.id, after_sequence=max(after_sequence, 0), details=details, on_lost=heard)
        async with aclosing(answers):
            async for answer in answers:
                yield answer

    async def wait(
        self,
        *,
        timeout_s: float | None = None,
        on_change: Callable[[Change], None] | None = None,
        report_to: str | Iterable[str] | None = None,
    ) -> JobStatus:
        """Follows the job until it is final. Raises JobFailed unless it succeeded, TimeoutError after `timeout_s`.

        `report_to` as in `watch`. In a notebook it shows the job as it goes on, unless the client has an
        `on_progress` of its own. An error or a break ends the waiting, never the job.
        """
        area = _area() if self._on_progress is None else None
        async with asyncio.timeout(timeout_s):
            async with aclosing(self.watch(report_to=report_to)) as changes:
                async for change in changes:
                    if area is not None:
                        area(self.last)
                    if self._on_progress is not None:
                        self._on_progress(progress_of(self.last))
                    if on_change is not None:
                        on_change(change)
        judge(self.last)
        return self.last

    async def pause(self) -> JobStatus:
        """Hands out no more shards; running ones finish and are paid."""
        return self._took(await calls.pause(await self._session(), self.id))

    async def resume(self) -> JobStatus:
        """Goes on with a paused job."""
        return self._took(await calls.resume(await self._session(), self.id))

    async def cancel(self) -> JobStatus:
        """Stops the job for good: valid work is paid, the rest of the budget comes back."""
        return self._took(await calls.cancel(await self._session(), self.id))

    async def top_up(self, sats: int, *, idempotency_key: str = "") -> JobStatus:
        """Adds whole sats from the balance to the budget; they pay for spare copies and further tries.

        Safe to repeat after an error or a break: until this returned, the same sats for the same job are the same
        top-up. `idempotency_key`: yours instead; the same key again adds nothing. Raises NotEnoughFunds
        "ledger.insufficient".
        """
        from .submission import pending_for

        msat, session, access = whole_sats(sats), await self._session(), self._access()
        if idempotency_key:
            return self._took(await calls.top_up(session, self.id, msat, idempotency_key=idempotency_key))
        wish = f"top up\0{access.join.ca_sha256}\0{session.party_id}\0{self.id}\0{sats}".encode()
        kept = pending_for(access.home.state_dir, wish)
        view = await calls.top_up(session, self.id, msat, idempotency_key=kept.submission_id)
        kept.answered()
        return self._took(view)

    async def close_people(self, stage: str = "") -> JobStatus:
        """Asks people no more: the stage goes on with the answers that it has. `stage` empty: the one that asks now.

        Raises NotFound "people.no_such_stage", Conflict "people.not_asking" and "people.no_answers".
        """
        return self._took(await calls.close_people(await self._session(), self.id, stage))

    async def cost_of(self, action: str, *, sats: int = 0) -> ControlCost:
        """What "pause", "resume", "cancel" or "topup" would cost at this moment. Changes nothing."""
        msat = whole_sats(sats) if sats or action == "topup" else 0
        return received.control_cost(await calls.cost_of(await self._session(), self.id, action, msat))

    async def reasons(self) -> list[Why]:
        """Everything that can be said of why it is where it is: its place in line, retries, refusals, its price."""
        answer = await calls.reasons(await self._session(), self.id)
        self._took(answer.job)
        return [why_from_proto(each) for each in answer.reasons]

    async def download(self, folder: str | os.PathLike[str], *, output: str | None = None) -> list[Download]:
        """Fetches what the job made into `folder`/<output name>, checked piece by piece; a repeat resumes.

        `output`: only this one. Raises Conflict "job.no_outputs" and "download.folder_differs", NotFound
        "job.no_such_output".
        """
        from .outputs.download import download_outputs

        return await download_outputs(
            await self._session(), self.id, Path(folder), only=output, on_progress=self._on_progress
        )

    async def samples(
        self, output: str, *, beside: str = "", search: str = "", rows: int = 10, at: int = 0
    ) -> SamplesPage:
        """A page of an output's rows, answers or preferences: prompt by prompt, side by side; nothing is kept.

        `beside`: another output, whose answers to the same prompts stand beside. `search`: only prompts with these
        words. `rows`: 1 to 100. `at`: the page before's `next_at`. Raises NotFound "samples.no_output", Conflict
        "samples.not_made", InvalidInput "samples.…".
        """
        from .outputs.rows import Asked, page

        asked = Asked(output=output, beside=beside, search=search, rows=rows, at=at)
        return await page(await self._session(), await self.status(), asked)

    def _took(self, view: jobs_pb2.JobView) -> JobStatus:
        self.last = received.job_status(view)
        return self.last


def _area() -> Callable[[JobStatus], None] | None:
    """Where a notebook shows the job; None elsewhere."""
    from .display.notebook import JobArea
    from .display.show import in_notebook

    return JobArea() if in_notebook() else None


def _ignore(_error: ShardworkError, _attempt: int) -> None:
    """Nobody asked to hear of lost connections; the watch goes on by itself."""
