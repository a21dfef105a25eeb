"""Client, Job and Wallet: the face of the library for programs without an event loop, and for notebooks.

Every method is the one of the same name and signature in `asynchronous`, `job` and `wallet`, run to its end on the loop
of `background`; what it does and raises is documented there. Nothing is implemented here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from ..why import Why
from .asynchronous import AsyncClient
from .background import background
from .display.notebook import job_html
from .job import AsyncJob, OnLost
from .plan import JobSource, Measured, Plan
from .progress import OnProgress
from .results import (
    Balance,
    Change,
    ControlCost,
    Deposit,
    Download,
    Event,
    JobStatus,
    Login,
    LogLine,
    Report,
    SamplesPage,
    StoredArtifact,
    Transfer,
    Withdrawal,
)
from .wallet import AsyncWallet

if TYPE_CHECKING:
    from ..dataset import DataReport
    from ..jobs.spec import JobSpec
    from .facts import CheckRequest


class Client:
    """A requester at one coordinator; see AsyncClient. Use it as a context manager, or `close` it."""

    def __init__(
        self,
        join: str | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
        name: str = "",
        on_progress: OnProgress | None = None,
    ) -> None:
        self._loop = background()
        self._inner = AsyncClient(join, home=home, name=name, on_progress=on_progress)

    @property
    def wallet(self) -> Wallet:
        """This requester's sats."""
        return Wallet(self._inner.wallet)

    def connect(self) -> str:
        """Connects and enrols now; the party id the coordinator knows us by."""
        return self._loop.run(self._inner.connect())

    def login(self, join: str) -> Login:
        """Enrols at the coordinator of `join` and remembers it for later clients."""
        return self._loop.run(self._inner.login(join))

    def check_data(
        self,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | CheckRequest,
        *,
        recipe: str | None = None,
        base_model: str | os.PathLike[str] | None = None,
        max_length: int | None = None,
    ) -> DataReport:
        """Format, counts, problems and first rows of data files. Needs no coordinator."""
        work = self._inner.check_data(files, recipe=recipe, base_model=base_model, max_length=max_length)
        return self._loop.run(work)

    def validate(self, job: JobSource) -> JobSpec:
        """The job as it would be sent. Needs no coordinator."""
        return self._loop.run(self._inner.validate(job))

    def measure(self, job: JobSource, *, max_sats: int | None = None) -> Measured:
        """Reads a job's files: rows, tokens, parameters, bytes. Needs no coordinator."""
        return self._loop.run(self._inner.measure(job, max_sats=max_sats))

    def plan(self, job: JobSource | Measured, *, max_sats: int | None = None) -> Plan:
        """The measured job with the coordinator's price. Spends nothing."""
        return self._loop.run(self._inner.plan(job, max_sats=max_sats))

    def submit(
        self,
        job: JobSource | Plan,
        *,
        max_sats: int | None = None,
        on_accepted: Callable[[str], None] | None = None,
    ) -> Job:
        """Uploads the inputs and starts the job; safe to repeat, and never paid twice."""
        return Job(self._loop.run(self._inner.submit(job, max_sats=max_sats, on_accepted=on_accepted)))

    def jobs(self, *, limit: int = 100, states: Iterable[str] = ()) -> list[Job]:
        """The newest jobs, newest first; only those in one of `states` where some are named."""
        return [Job(each) for each in self._loop.run(self._inner.jobs(limit=limit, states=states))]

    def job(self, job_id: str) -> Job:
        """One job by its id or the beginning of it."""
        return Job(self._loop.run(self._inner.job(job_id)))

    def artifacts(self) -> list[StoredArtifact]:
        """What the coordinator keeps for this requester, why and until when."""
        return self._loop.run(self._inner.artifacts())

    def delete_artifact(self, artifact_id: str) -> str:
        """Gives stored content up, by its id or the beginning of it; its full id."""
        return self._loop.run(self._inner.delete_artifact(artifact_id))

    def close(self) -> None:
        """Ends the connection; jobs go on."""
        self._loop.run(self._inner.close())

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Job:
    """One job of this requester; see AsyncJob. Made by `Client.submit`, `job` and `jobs`."""

    def __init__(self, inner: AsyncJob) -> None:
        self._loop = background()
        self._inner = inner

    @property
    def id(self) -> str:
        return self._inner.id

    @property
    def last(self) -> JobStatus:
        """The newest status that any call of this object saw."""
        return self._inner.last

    @property
    def tracked_in(self) -> list[str]:
        """How to look at what a watch told the trackers, one line each."""
        return self._inner.tracked_in

    def __repr__(self) -> str:
        return repr(self._inner).replace("AsyncJob", "Job", 1)

    def _repr_html_(self) -> str:
        return job_html(self.last)

    def status(self) -> JobStatus:
        """The job as it is now."""
        return self._loop.run(self._inner.status())

    def why(self) -> Why | None:
        """Why it waits, rests or failed; None when nothing is in its way."""
        return self._loop.run(self._inner.why())

    def report(self) -> Report:
        """Rounds, workers, payments and money."""
        return self._loop.run(self._inner.report())

    def events(self, *, after_sequence: int = 0, last: int | None = None) -> Iterator[Event]:
        """Everything that happened so far, oldest first; with `last`, only so many of the newest."""
        return self._loop.iterate(self._inner.events(after_sequence=after_sequence, last=last))

    def logs(self, *, last: int = 50, follow: bool = False, on_lost: OnLost | None = None) -> Iterator[LogLine]:
        """The last lines of the job's log, oldest first: what happened to each attempt at a shard, in words."""
        return self._loop.iterate(self._inner.logs(last=last, follow=follow, on_lost=on_lost))

    def watch(
        self,
        *,
        after_sequence: int = 0,
        on_lost: OnLost | None = None,
        report_to: str | Iterable[str] | None = None,
    ) -> Iterator[Change]:
        """Every change until the job is final, across restarts of the coordinator."""
        work = self._inner.watch(after_sequence=after_sequence, on_lost=on_lost, report_to=report_to)
        return self._loop.iterate(work)

    def wait(
        self,
        *,
        timeout_s: float | None = None,
        on_change: Callable[[Change], None] | None = None,
        report_to: str | Iterable[str] | None = None,
    ) -> JobStatus:
        """Follows the job until it is final; raises JobFailed unless it succeeded. Ctrl-C leaves it running."""
        return self._loop.run(self._inner.wait(timeout_s=timeout_s, on_change=on_change, report_to=report_to))

    def pause(self) -> JobStatus:
        """Hands out no more shards; running ones finish and are paid."""
        return self._loop.run(self._inner.pause())

    def resume(self) -> JobStatus:
        """Goes on with a paused job."""
        return self._loop.run(self._inner.resume())

    def cancel(self) -> JobStatus:
        """Stops the job for good: valid work is paid, the rest of the budget comes back."""
        return self._loop.run(self._inner.cancel())

    def top_up(self, sats: int, *, idempotency_key: str = "") -> JobStatus:
        """Adds whole sats from the balance to the budget; they pay for spare copies and further tries. Safe to repeat
        after an error."""
        return self._loop.run(self._inner.top_up(sats, idempotency_key=idempotency_key))

    def close_people(self, stage: str = "") -> JobStatus:
        """Asks people no more: the stage goes on with the answers that it has. `stage` empty: the one that asks now."""
        return self._loop.run(self._inner.close_people(stage))

    def cost_of(self, action: str, *, sats: int = 0) -> ControlCost:
        """What "pause", "resume", "cancel" or "topup" would cost at this moment. Changes nothing."""
        return self._loop.run(self._inner.cost_of(action, sats=sats))

    def reasons(self) -> list[Why]:
        """Everything that can be said of why it is where it is: its place in line, retries, refusals, its price."""
        return self._loop.run(self._inner.reasons())

    def download(self, folder: str | os.PathLike[str], *, output: str | None = None) -> list[Download]:
        """Fetches what the job made into `folder`/<output name>; a repeat resumes."""
        return self._loop.run(self._inner.download(folder, output=output))

    def samples(self, output: str, *, beside: str = "", search: str = "", rows: int = 10, at: int = 0) -> SamplesPage:
        """A page of an output's rows, answers or preferences: prompt by prompt, side by side; nothing is kept."""
        return self._loop.run(self._inner.samples(output, beside=beside, search=search, rows=rows, at=at))


class Wallet:
    """A requester's sats, in and out; see AsyncWallet."""

    def __init__(self, inner: AsyncWallet) -> None:
        self._loop = background()
        self._inner = inner

    def balance(self) -> Balance:
        """What is available, held and earned."""
        return self._loop.run(self._inner.balance())

    def deposit(self, sats: int, *, wait: bool = True, on_invoice: Callable[[Deposit], None] | None = None) -> Deposit:
        """Makes an invoice over whole sats; with `wait`, returns once it is paid."""
        return self._loop.run(self._inner.deposit(sats, wait=wait, on_invoice=on_invoice))

    def withdraw(
        self, sats: int, address: str, *, wait: bool = True, on_created: Callable[[Withdrawal], None] | None = None
    ) -> Withdrawal:
        """Takes whole sats out to a Lightning address; safe to repeat, and sent at most once."""
        return self._loop.run(self._inner.withdraw(sats, address, wait=wait, on_created=on_created))

    def withdrawal(self, withdrawal_id: str) -> Withdrawal:
        """One withdrawal as it is now."""
        return self._loop.run(self._inner.withdrawal(withdrawal_id))

    def cancel_withdrawal(self, withdrawal_id: str) -> Withdrawal:
        """Calls off one that was not sent yet."""
        return self._loop.run(self._inner.cancel_withdrawal(withdrawal_id))

    def history(self, *, limit: int = 50) -> list[Transfer]:
        """The newest transfers of this account, newest first."""
        return self._loop.run(self._inner.history(limit=limit))
