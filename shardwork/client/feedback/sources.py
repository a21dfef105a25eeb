"""Sources: votes with what they are about: of a file, of a folder as `job download` and `feedback judge` make them, or
of a job. Called by the other modules of `feedback` and by the command line.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import Conflict, NotFound
from ...feedback.blending import Blend
from ...feedback.consensus import Rule
from ...feedback.pooling import Item, Items, pooled, read_items
from ...feedback.report import Judged, judged
from ...feedback.votes import Vote, read
from ..asynchronous import AsyncClient
from ..results import JobStatus

VOTES, ITEMS = "votes.jsonl", "items.jsonl"
#: a job's id or the beginning of one, and maybe a stage's name
_OF_JOB = re.compile(r"^(?P<job>[0-9a-f]{4,})(?:\.(?P<stage>[a-z0-9][a-z0-9_-]{0,39}))?$")


@dataclass(frozen=True, slots=True)
class Source:
    votes: Sequence[Vote]
    items: Items = field(default_factory=dict[str, Item])


def of_path(path: Path) -> Source:
    """Raises NotFound "feedback.no_votes" and InvalidInput "votes.*"."""
    file = path / VOTES if path.is_dir() else path
    if not file.is_file():
        raise NotFound(
            "feedback.no_votes",
            f"There are no votes at {path}.",
            next_step="Name a file of votes, a folder that holds votes.jsonl, or a job: ID or ID.stage.",
            path=path,
        )
    with file.open(encoding="utf-8", errors="replace") as lines:
        votes = list(read(lines, str(file)))
    beside = file.with_name(ITEMS)
    if file.name != VOTES or not beside.is_file():
        return Source(votes)
    with beside.open(encoding="utf-8", errors="replace") as lines:
        return Source(votes, dict(read_items(lines, str(beside))))


def is_of_job(name: str) -> bool:
    return _OF_JOB.match(name) is not None and not Path(name).exists()


async def of_job(client: AsyncClient, name: str) -> list[Source]:
    """The votes of a job's stages, or of one. Raises NotFound, Conflict "feedback.no_votes_yet"."""
    found = _OF_JOB.match(name)
    assert found is not None
    job = await client.job(found["job"])
    wanted = _outputs(job.last, found["stage"])
    if not wanted:
        raise Conflict(
            "feedback.no_votes_yet",
            f"No stage of job {job.id} has made votes yet.",
            next_step=f"Follow it with:  shardwork job watch {job.id}",
            job=job.id,
        )
    sources: list[Source] = []
    with tempfile.TemporaryDirectory(prefix="shardwork-votes-") as folder:
        for output in wanted:
            for fetched in await job.download(folder, output=output):
                sources.append(of_path(fetched.folder))
    return sources


def _outputs(job: JobStatus, stage: str | None) -> list[str]:
    """Names of outputs with votes. A stage of consensus holds those of others again."""
    again = {one.name for one in job.stages if one.recipe == "consensus"} if stage is None else set[str]()
    named = [output.name for output in job.outputs if output.kind == "votes"]
    made_by = {name: name.partition(".")[0] for name in named}
    return [name for name, maker in made_by.items() if maker not in again and stage in (None, maker)]


def judged_together(sources: Sequence[Source], rule: Rule, how: Blend) -> Judged:
    return judged(pooled((one.votes, one.items) for one in sources), rule, how)
