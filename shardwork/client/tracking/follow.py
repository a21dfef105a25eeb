"""New rounds of a job that is being watched, told to its trackers, each round once. Used by `AsyncJob.watch`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from ..results import JobStatus, Report
from . import record
from .points import points, priced
from .trackers import Place, Tracker, chosen, open_tracker, watched


class Following:
    """The trackers of one job. `report` asks for the payments, which a round's cost is made of."""

    def __init__(
        self,
        job_id: str,
        report_to: str | Iterable[str] | None,
        state_dir: Path,
        report: Callable[[], Awaitable[Report]],
    ) -> None:
        self._record = record.load(state_dir, job_id)
        #: what was asked for now, or else in the job's file
        asked = self._record.report_to if report_to is None else report_to
        self.names = chosen([asked] if isinstance(asked, str) else asked)
        self._folder, self._report = record.folder(state_dir), report
        self._open: dict[str, Tracker] = {}

    @property
    def shown_by(self) -> list[str]:
        """How people look at what was told."""
        return [tracker.shown_by for tracker in self._open.values()]

    async def hear(self, job: JobStatus) -> None:
        """Tells every tracker the rounds that it has not heard of. Raises InvalidInput "tracking.failed"."""
        found = points(job) if self.names else []
        missing = {name: [each for each in found if each.key not in self._sent(name)] for name in self.names}
        if not any(missing.values()):
            return
        report = await self._report()
        for name, fresh in missing.items():
            for point in fresh:
                tracker = self._tracker(name, job)
                with watched(name):
                    tracker.write(point.step, priced(point, report).scalars)
                self._record.add(name, point.key)

    def close(self) -> None:
        """Ends the runs; the first error of one is told when all are closed."""
        while self._open:
            name, tracker = self._open.popitem()
            with watched(name):
                tracker.close()

    def _sent(self, name: str) -> set[str]:
        return self._record.sent.get(name, set())

    def _tracker(self, name: str, job: JobStatus) -> Tracker:
        if name not in self._open:
            self._open[name] = open_tracker(name, Place(job.id, job.name, self._folder))
        return self._open[name]
