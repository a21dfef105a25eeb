"""AsyncClient: everything a requester does, as a program does it with asyncio. The one implementation.

`Client` (`blocking`) is the same for programs without an event loop, and every command of `shardwork` is a thin call of
this. Nothing connects before the first call that needs a coordinator. Prints nothing, asks nothing. What reads job
files, data and models is imported by the methods that do: it takes longer than a whole `job list`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..config import Home
from ..identity.authority import JoinLine
from ..identity.role import Role
from ..session import Session
from . import calls, received, settings
from .job import AsyncJob
from .progress import OnProgress
from .results import JobStatus, Login, StoredArtifact
from .settings import Access
from .thread import beside_loop
from .wallet import AsyncWallet

if TYPE_CHECKING:
    from ..dataset import DataReport
    from ..jobs.spec import JobSpec
    from .facts import CheckRequest
    from .plan import JobSource, Measured, Plan


class AsyncClient:
    """A requester at one coordinator. Use it as an async context manager, or `close` it.

    `join`: the coordinator's join line; without it SHARDWORK_JOIN or the one remembered by a login. `home`: where key,
    settings and unfinished submissions lie, as SHARDWORK_HOME; without it the usual folders. `on_progress` hears how
    far reading, uploading, downloading and waiting are (`shardwork.show_progress()` draws it).
    """

    def __init__(
        self,
        join: str | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
        name: str = "",
        on_progress: OnProgress | None = None,
    ) -> None:
        self._join = join
        self._home = home_of(home)
        self._name = name
        self._on_progress = on_progress
        self._session: Session | None = None
        self._opening = asyncio.Lock()

    @property
    def wallet(self) -> AsyncWallet:
        """This requester's sats."""
        return AsyncWallet(self.session, lambda: self.access)

    async def connect(self) -> str:
        """Connects and enrols now instead of at the first call; the party id the coordinator knows us by.

        Raises NotAuthenticated "login.missing" or "authority.wrong_fingerprint", Unreachable.
        """
        return (await self.session()).party_id

    async def login(self, join: str) -> Login:
        """Enrols at the coordinator of `join` and remembers it in `home` for later clients. Raises like `connect`."""
        JoinLine.parse(join)
        await self.close()
        self._join = join
        session = await self.session()
        # with all coordinators that it has now
        saved = await asyncio.to_thread(settings.save_join, self._home, session.join)
        return Login(party_id=session.party_id, join=session.join.text(), config_file=saved)

    async def check_data(
        self,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | CheckRequest,
        *,
        recipe: str | None = None,
        base_model: str | os.PathLike[str] | None = None,
        max_length: int | None = None,
    ) -> DataReport:
        """Format, counts, problems and first rows of data files, as a job of `recipe` would read them.

        `max_length` in tokens; a CheckRequest asks for more: held-out files, a mapping, a format. Needs no coordinator.
        Errors of rows are in the report; raises InvalidInput only for files or models that cannot be read at all.
        """
        from . import facts

        if isinstance(files, facts.CheckRequest):
            asked = files
        else:
            many = [files] if isinstance(files, str | os.PathLike) else list(files)
            asked = facts.CheckRequest(
                files=[Path(file) for file in many],
                recipe=recipe,
                base_model=Path(base_model) if base_model is not None else None,
                max_length=max_length,
            )

        def check(on_progress: OnProgress) -> DataReport:
            return facts.check_files(asked, on_progress=on_progress)

        return await beside_loop(check, self._on_progress)

    async def validate(self, job: JobSource) -> JobSpec:
        """The job as it would be sent. Needs no coordinator. Raises JobFileInvalid with all `problems`."""
        from . import plan

        return (await beside_loop(lambda _: plan.read(job), None)).spec

    async def measure(self, job: JobSource, *, max_sats: int | None = None) -> Measured:
        """Reads a job's files: rows, tokens, parameters, bytes. Needs no coordinator, but for models of a hub, which it
        pins and describes.

        `max_sats` replaces the job's own budget. Raises JobFileInvalid, DataInvalid.
        """
        from . import hub, plan

        named = hub.references(await self.validate(job))
        models = await hub.resolve(await self.session(), named, self.access.home.cache_dir) if named else {}
        return await beside_loop(
            lambda heard: plan.measure(job, max_sats=max_sats, on_progress=heard, hub=models), self._on_progress
        )

    async def plan(self, job: JobSource | Measured, *, max_sats: int | None = None) -> Plan:
        """The measured job with the coordinator's price and the wallet's balance. Spends nothing.

        Raises JobFileInvalid, DataInvalid; whether it can be paid is `Plan.check_affordable`.
        """
        from .plan import Measured, price

        if not isinstance(job, Measured):
            job = await self.measure(job, max_sats=max_sats)
        measured = job if max_sats is None else job.capped(max_sats)
        return await price(await self.session(), measured)

    async def submit(
        self,
        job: JobSource | Plan,
        *,
        max_sats: int | None = None,
        on_accepted: Callable[[str], None] | None = None,
    ) -> AsyncJob:
        """Uploads the inputs and starts the job; its reserve is held from now on.

        Safe to repeat after an error or a break: it resumes the upload, and until `on_accepted` was told the job's id
        (or this returned), the same job is never paid twice. Raises as `plan`, InvalidInput "budget.below_plan" and
        NotEnoughFunds "wallet.below_plan".
        """
        from . import submit
        from .plan import Plan
        from .tracking import record, trackers

        plan = job if isinstance(job, Plan) else await self.plan(job, max_sats=max_sats)
        if max_sats is not None:
            plan = replace(plan, measured=plan.measured.capped(max_sats))
        plan.check_affordable()
        # before a sat moves: a tracker that is not installed would be missed when the first round is over
        trackers.chosen(plan.spec.report_to)
        session = await self.session()
        job_id = await submit.submit(
            session, self.access, plan.measured, announce=on_accepted, on_progress=self._on_progress
        )
        if plan.spec.report_to:
            record.note(self.access.home.state_dir, job_id, plan.spec.report_to)
        # asking for its status might fail, and then nobody would know the id of a job that is paid
        started = JobStatus(id=job_id, name=plan.spec.name, state="funded", budget_msat=plan.measured.budget_msat)
        return self._job_of(started)

    async def jobs(self, *, limit: int = 100, states: Iterable[str] = ()) -> list[AsyncJob]:
        """The newest jobs, newest first; their `last` status has no rounds. `states`: only jobs in one of these.

        Raises InvalidInput "job.no_state".
        """
        views = await calls.jobs(await self.session(), limit=limit, states=states)
        return [self._job_of(received.job_status(view)) for view in views]

    async def job(self, job_id: str) -> AsyncJob:
        """One job by its id or the beginning of it. Raises NotFound "job.not_found", InvalidInput "job.ambiguous"."""
        view = await calls.job(await self.session(), job_id)
        return self._job_of(received.job_status(view))

    async def artifacts(self) -> list[StoredArtifact]:
        """What the coordinator keeps for this requester, why and until when."""
        return [received.stored_artifact(each) for each in await calls.stored(await self.session())]

    async def delete_artifact(self, artifact_id: str) -> str:
        """Gives stored content up, by its id or the beginning of it; its full id.

        Raises NotFound "artifact.not_found", Conflict "artifact.in_use" while a job that has not ended needs it.
        """
        return (await calls.delete_artifact(await self.session(), artifact_id)).artifact_id

    async def close(self) -> None:
        """Ends the connection; jobs go on. Harmless when there is none."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @property
    def access(self) -> Access:
        """Which coordinator, and as whom. Raises NotAuthenticated "login.missing"."""
        return settings.access(self._join, home=self._home)

    async def session(self) -> Session:
        """The open session, opened now if need be: the calls of the contract that have no method here."""
        async with self._opening:
            if self._session is None:
                access = self.access
                self._session = await Session.open(access.join, access.key(), Role.REQUESTER, name=self._name)
                await asyncio.to_thread(settings.remember_others, access, self._session.join)
            return self._session

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _job_of(self, status: JobStatus) -> AsyncJob:
        return AsyncJob(self.session, lambda: self.access, status, self._on_progress)


def home_of(folder: str | os.PathLike[str] | None) -> Home:
    """The folders below `folder`, or this user's usual ones."""
    return Home.find() if folder is None else Home.find({"SHARDWORK_HOME": os.fspath(folder)})
