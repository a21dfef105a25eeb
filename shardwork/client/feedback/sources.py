"""Sources: votes with what they are about: of a file, of a folder as `job download` and `feedback judge` make them, or
of a job. Called by the other modules of `feedback` and by the command line.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...dataset.exchange import known, records
from ...dataset.source import foreign
from ...errors import Conflict, InvalidInput, NotFound
from ...feedback.blending import Blend
from ...feedback.consensus import Rule
from ...feedback.pooling import Item, Items, pooled, read_items
from ...feedback.report import Costs, Judged, judged
from ...feedback.votes import Vote, read
from ..asynchronous import AsyncClient
from ..job import AsyncJob
from ..results import JobStatus

VOTES, ITEMS, REPORT = "votes.jsonl", "items.jsonl", "report"
#: recipes whose stages have an output `votes`
MAKES_VOTES = ("people", "judge", "consensus")
#: keys of votes that nothing else has
OF_VOTES = frozenset({"winner", "annotator", "model_a", "model_b"})
NAME_VOTES = "Name a file of votes, a folder that holds votes.jsonl, or a job: ID or ID.stage."
#: a job's id or the beginning of one, and maybe a stage's name, or that of its output
_OF_JOB = re.compile(r"^(?P<job>[0-9a-f]{4,})(?:\.(?P<stage>[a-z0-9][a-z0-9_-]{0,39})(?:\.votes)?)?$")


@dataclass(frozen=True, slots=True)
class Source:
    votes: Sequence[Vote]
    items: Items = field(default_factory=dict[str, Item])
    #: what they cost; None: nobody said
    costs: Costs | None = None


def of_path(path: Path) -> Source:
    """Raises NotFound "feedback.no_votes" and InvalidInput "votes.*", "data.*"."""
    file = path / VOTES if path.is_dir() else path
    if not file.is_file():
        raise NotFound(
            "feedback.no_votes",
            f"There are no votes at {path}.",
            next_step=NAME_VOTES,
            path=path,
        )
    _refuse_others(file)
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        votes = list(read(lines, str(file)))
    beside = file.with_name(ITEMS)
    if file.name != VOTES or not beside.is_file():
        return Source(votes)
    with beside.open(encoding="utf-8-sig", errors="replace") as lines:
        return Source(votes, dict(read_items(lines, str(beside))))


def _refuse_others(file: Path) -> None:
    """Raises InvalidInput "data.*" for what is no text, and "votes.other_rows" for rows of another kind."""
    wrong = foreign(file)
    if wrong is not None:
        fix = wrong.fix if wrong.code == "data.not_utf8" else NAME_VOTES
        raise InvalidInput(wrong.code, wrong.sentence, next_step=fix, file=file)
    try:
        first = next(records(file), None)
    except InvalidInput:
        return  # whoever reads votes says what is wrong, and where
    if first is None or set(first.value) & OF_VOTES:
        return
    held = known(first.value)
    told = f"these are {held.what}" if held is not None else "its first row has none of their keys"
    raise InvalidInput(
        "votes.other_rows",
        f"The file holds no votes; {told}.",
        next_step=held.fix if held is not None else NAME_VOTES,
        file=file,
        line=first.line.number,
    )


def is_of_job(name: str) -> bool:
    return _OF_JOB.match(name) is not None and not Path(name).exists()


async def of_job(client: AsyncClient, name: str) -> list[Source]:
    """The votes of a job's stages, or of one.

    Raises NotFound "feedback.no_such_stage", "feedback.no_votes", Conflict "feedback.no_votes_yet".
    """
    found = _OF_JOB.match(name)
    assert found is not None
    job = await client.job(found["job"])
    wanted = _outputs(job.last, found["stage"])
    if not wanted:
        raise _no_votes(job.last, found["stage"])
    sources: list[Source] = []
    with tempfile.TemporaryDirectory(prefix="shardwork-votes-") as folder:
        for output in wanted:
            for fetched in await job.download(folder, output=output):
                costs = await _costs(job, output.partition(".")[0], folder)
                sources.append(replace(of_path(fetched.folder), costs=costs))
    return sources


def _no_votes(job: JobStatus, stage: str | None) -> NotFound | Conflict:
    """No such stage, none that makes votes, or not yet."""
    makers = [one.name for one in job.stages if one.recipe in MAKES_VOTES]
    named = makers if stage is None else [one for one in makers if one == stage]
    if stage is not None and stage not in [one.name for one in job.stages]:
        told = f"Stages of it: {', '.join(one.name for one in job.stages)}."
        return NotFound("feedback.no_such_stage", f"The job has no stage {stage!r}.", next_step=told, job=job.id)
    if not named:
        who = f"Stage {stage!r} of the job makes" if stage is not None else "No stage of the job makes"
        told = f"Stages that do: {', '.join(makers)}." if makers else "Stages of people, judge and consensus do."
        no = "no votes" if stage is not None else "votes"
        return NotFound("feedback.no_votes", f"{who} {no}.", next_step=told, job=job.id)
    if job.is_final:
        return NotFound(
            "feedback.no_votes",
            f"The job ended ({job.state}) before votes were put together.",
            next_step="`shardwork job report` shows what became of it; submit a new job to go on.",
            job=job.id,
        )
    return Conflict(
        "feedback.no_votes_yet",
        f"No stage of job {job.id} has made votes yet.",
        next_step=f"Follow it with:  shardwork job watch {job.id}",
        job=job.id,
    )


def _outputs(job: JobStatus, stage: str | None) -> list[str]:
    """Names of outputs with votes. A stage of consensus holds those of others again."""
    again = {one.name for one in job.stages if one.recipe == "consensus"} if stage is None else set[str]()
    named = [output.name for output in job.outputs if output.kind == "votes"]
    made_by = {name: name.partition(".")[0] for name in named}
    return [name for name, maker in made_by.items() if maker not in again and stage in (None, maker)]


def spent_together(sources: Sequence[Source]) -> Costs | None:
    """None where nobody said what some of the votes cost."""
    known = [one.costs for one in sources if one.costs is not None]
    if len(known) < len(sources):
        return None
    return sum(known, Costs())


async def _costs(job: AsyncJob, stage: str, folder: str) -> Costs | None:
    """Of the votes that a stage made: pay and fees. One of consensus asked nobody; its report knows who did."""
    made = next(one for one in job.last.stages if one.name == stage)
    if made.recipe != "consensus":
        msat, ms = made.spent_msat, round(1000 * sum(one.seconds for one in made.rounds))
        is_judge = made.recipe == "judge"
        return Costs(judge_msat=msat, judge_ms=ms) if is_judge else Costs(people_msat=msat, people_ms=ms)
    if all(output.name != f"{stage}.{REPORT}" for output in job.last.outputs):
        return None
    (fetched,) = await job.download(folder, output=f"{stage}.{REPORT}")
    told = json.loads((fetched.folder / f"{REPORT}.json").read_text("utf-8"))
    return Costs(**told["costs"]) if told.get("costs") else None


def judged_together(sources: Sequence[Source], rule: Rule, how: Blend) -> Judged:
    return judged(pooled((one.votes, one.items) for one in sources), rule, how)
