"""`shardwork feedback ratings | report | export | import`: votes of people and judges, in files or of jobs.

The verbs that ask somebody are `feedback_asking`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shardwork.feedback.blending import Conflict
from shardwork.feedback.consensus import Rule

from ..outcome import emit, guard, say, usage
from .options import JsonOption

if TYPE_CHECKING:
    from shardwork.client.asynchronous import AsyncClient
    from shardwork.client.feedback.exchanging import Program
    from shardwork.client.feedback.sources import Source
    from shardwork.feedback.report import Judged

app = typer.Typer(help="Votes on answers: ratings, reports, exchange, and an outside judge.", no_args_is_help=True)

VotesArgument = Annotated[
    list[str],
    typer.Argument(metavar="VOTES", help="A votes.jsonl, a folder with one, a job's id, or ID.stage; repeatable."),
]
RuleOption = Annotated[Rule, typer.Option("--rule", help="How several votes on a pair become one verdict.")]
PeopleOption = Annotated[
    float, typer.Option("--people", min=0, max=1e6, help="How much people's verdict counts in the blend.")
]
JudgeOption = Annotated[
    float, typer.Option("--judge", min=0, max=1e6, help="How much a judge's verdict counts in the blend.")
]
ConflictOption = Annotated[
    Conflict, typer.Option("--conflict", help="Where people prefer one answer and the judge the other.")
]


@app.command()
def ratings(context: typer.Context, votes: VotesArgument, json_output: JsonOption = False) -> None:
    """How strong each model is by the votes, and who beats whom how often, with 95 % intervals.

    Example:  shardwork feedback ratings out/judged.votes
    """
    with guard(json_output):
        from shardwork.feedback.report import ratings_json

        from .. import render
        from ..feedback import page

        every = [vote for source in _sources(context, votes) for vote in source.votes]
        found = ratings_json(every)
        if json_output:
            emit({"votes": len(every), **found})
        else:
            render.show(page.ratings_page(found))


@app.command()
def report(
    context: typer.Context,
    votes: VotesArgument,
    rule: RuleOption = Rule.DAWID_SKENE,
    people: PeopleOption = 1.0,
    judge: JudgeOption = 0.5,
    conflict: ConflictOption = Conflict.PEOPLE_FIRST,
    json_output: JsonOption = False,
) -> None:
    """Who agrees with whom, whose place or length won, and people, judge and both together side by side.

    Example:  shardwork feedback report 6b61.feedback 6b61.judged
    """
    with guard(json_output):
        from shardwork.client.feedback.sources import spent_together
        from shardwork.feedback.report import report as told

        from .. import render
        from ..feedback import page

        sources = _sources(context, votes)
        found = told(_judged(sources, rule, (people, judge, conflict)), spent_together(sources))
        if json_output:
            emit(found)
        else:
            render.show(page.report_page(found))


@app.command("export")
def export_votes(
    context: typer.Context,
    votes: VotesArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write; it must be new.")],
    to: Annotated[str, typer.Option("--to", metavar="PROGRAM", help="argilla, label-studio or preferences.")],
    rule: RuleOption = Rule.DAWID_SKENE,
    people: PeopleOption = 1.0,
    judge: JudgeOption = 0.5,
    conflict: ConflictOption = Conflict.PEOPLE_FIRST,
    json_output: JsonOption = False,
) -> None:
    """Write votes as another program imports them, or as preference rows to learn from.

    Example:  shardwork feedback export 6b61.feedback records.json --to argilla
    """
    with guard(json_output):
        from dataclasses import asdict

        from shardwork.client.feedback.exchanging import export

        program = _program(to, "--to", json_output)
        made = export(_judged(_sources(context, votes), rule, (people, judge, conflict)), program, out)
        if json_output:
            emit({"path": str(out), **asdict(made)})
        else:
            say(f"✓ {out}: {made.rows:,} comparisons, {made.votes:,} votes, {made.preferences:,} preferences")


@app.command("import")
def import_votes(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What the other program exported.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="A folder, which gets votes, items and preferences.")],
    source: Annotated[str, typer.Option("--from", metavar="PROGRAM", help="argilla, label-studio or preferences.")],
    json_output: JsonOption = False,
) -> None:
    """Read another program's file: votes.jsonl, items.jsonl and preferences.jsonl in a folder.

    Example:  shardwork feedback import records.json back --from argilla
    """
    with guard(json_output):
        from dataclasses import asdict

        from shardwork.client.feedback.exchanging import take_in

        made = take_in(file, _program(source, "--from", json_output), folder)
        if json_output:
            emit({"path": str(folder), **asdict(made)})
        else:
            say(f"✓ {folder}: {made.rows:,} comparisons, {made.votes:,} votes, {made.preferences:,} preferences")


# ---- inside -------------------------------------------------------------------------------------------------------


def _program(name: str, option: str, json_output: bool) -> Program:
    from shardwork.client.feedback.exchanging import Program

    if name not in list(Program):
        usage(f"{option} knows no program {name!r}.", f"Name one of {', '.join(Program)}.", json_output)
    return Program(name)


def _sources(context: typer.Context, names: list[str]) -> list[Source]:
    """Files are read here, jobs' votes fetched in one connection."""
    from shardwork.client.feedback.sources import is_of_job, of_job, of_path

    from .. import access

    async def fetched(client: AsyncClient) -> dict[str, list[Source]]:
        return {name: await of_job(client, name) for name in names if is_of_job(name)}

    jobs = access.run(context, fetched) if any(is_of_job(name) for name in names) else {}
    return [source for name in names for source in jobs.get(name) or [of_path(Path(name))]]


def _judged(sources: list[Source], rule: Rule, how: tuple[float, float, Conflict]) -> Judged:
    from shardwork.client.feedback.sources import judged_together
    from shardwork.feedback.blending import Blend

    people, judge, conflict = how
    return judged_together(sources, rule, Blend(people=people, judge=judge, conflict=conflict))
