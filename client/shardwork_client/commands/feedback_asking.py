"""`shardwork feedback judge | progress | close | vote`: an outside judge, how far people are, an end to the asking, and
judging in a terminal."""

from __future__ import annotations

import os
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ..outcome import emit, guard, say, usage
from .feedback import app
from .options import JobIdArgument, JsonOption

if TYPE_CHECKING:
    from shardwork.client.asynchronous import AsyncClient
    from shardwork.client.feedback.judging import Judgement
    from shardwork.client.results import JobStatus

#: billionths of a dollar for a token, of a price for a million
NANOS_PER_DOLLAR, TOKENS_PRICED = 10**9, 10**6


@app.command()
def judge(
    answers: Annotated[list[Path], typer.Argument(metavar="ANSWERS", help="Rows of answers, as generate makes them.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Gets votes.jsonl; a repeat goes on.", file_okay=False)],
    endpoint: Annotated[str, typer.Option("--endpoint", metavar="URL", help="OpenAI-compatible, up to /v1.")],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="The judge, as the endpoint calls it.")],
    key_env: Annotated[
        str, typer.Option("--key-env", metavar="NAME", help="Variable that holds your key; left out: none is sent.")
    ] = "",
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Ask no more than surely fits: tokens in and out.")
    ] = None,
    max_usd: Annotated[
        str | None, typer.Option("--max-usd", metavar="USD", help="Likewise in dollars; needs both prices.")
    ] = None,
    usd_in: Annotated[str, typer.Option("--usd-in", metavar="USD", help="Price of a million tokens read.")] = "",
    usd_out: Annotated[str, typer.Option("--usd-out", metavar="USD", help="Price of a million tokens written.")] = "",
    rubric: Annotated[
        Path | None, typer.Option("--rubric", metavar="FILE", help="What 'better' means.", exists=True, dir_okay=False)
    ] = None,
    pairs_per_prompt: Annotated[
        int, typer.Option("--pairs-per-prompt", min=1, max=64, help="Comparisons drawn from a prompt's answers.")
    ] = 1,
    label: Annotated[str, typer.Option("--label", help="What the judge is called in votes.")] = "judge",
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31, help="Draws the pairs.")] = 0,
    parallel: Annotated[int, typer.Option("--parallel", min=1, max=64, help="Questions at the same time.")] = 4,
    no_logprobs: Annotated[
        bool, typer.Option("--no-logprobs", help="Don't ask for probabilities, which some servers refuse.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Have a judge of your own compare answers, each pair in both orders, within a cap. Your key stays here.

    Example:  shardwork feedback judge rows.jsonl judged --endpoint https://api.example.com/v1 --model big \
--key-env MY_KEY --max-tokens 200000

    A repeat goes on where it was. Exit 6 when the cap leaves pairs out.
    """
    kept = "What was paid for is kept, and the same command goes on from there."
    with guard(json_output, interrupted=kept):
        import asyncio

        from shardwork.client.feedback.endpoint import Endpoint
        from shardwork.client.feedback.journal import Cap
        from shardwork.client.feedback.judging import Asked
        from shardwork.client.feedback.judging import judge as judged

        if max_tokens is None and max_usd is None:
            usage("Nothing says how much may be spent.", "Give --max-tokens or --max-usd.", json_output)
        if max_usd is not None and not (usd_in and usd_out):
            usage("--max-usd needs to know prices.", "Give --usd-in and --usd-out, of a million tokens.", json_output)
        cap = Cap(
            tokens=max_tokens,
            nanos=None if max_usd is None else _nanos("--max-usd", max_usd, json_output),
            nanos_in=_nanos_of_token("--usd-in", usd_in, json_output),
            nanos_out=_nanos_of_token("--usd-out", usd_out, json_output),
        )
        asked = Asked(
            files=answers,
            folder=folder,
            cap=cap,
            rubric=rubric.read_text("utf-8") if rubric else "",
            pairs_per_prompt=pairs_per_prompt,
            seed=seed,
            label=label,
            parallel=parallel,
        )
        to = Endpoint(url=endpoint, model=model, key=_key(key_env), logprobs=not no_logprobs)
        _end(asyncio.run(judged(asked, to)), folder, json_output)


@app.command()
def progress(
    context: typer.Context,
    job_id: JobIdArgument,
    stage: Annotated[str, typer.Option("--stage", help="Only this stage.")] = "",
    json_output: JsonOption = False,
) -> None:
    """How far stages are that people answer: items, votes, who judges, money held and paid, agreement.

    Example:  shardwork feedback progress 6b61 --stage feedback
    """
    with guard(json_output):
        from shardwork.client import calls

        from .. import access, render
        from ..feedback import page

        async def asked(client: AsyncClient) -> dict[str, Any]:
            return await calls.people_progress(await client.session(), job_id, stage)

        found = access.run(context, asked)
        if json_output:
            emit(found)
        else:
            render.show(page.progress_page(found["stages"]))


@app.command()
def close(
    context: typer.Context,
    job_id: JobIdArgument,
    stage: Annotated[str, typer.Option("--stage", help="Left out: the one that asks people now.")] = "",
    json_output: JsonOption = False,
) -> None:
    """Ask people no more: the stage goes on with the answers that it has, and its job with it.

    Answers that wait are paid as at the stage's ordinary end; the rest of the money comes back with the job's end.

    Example:  shardwork feedback close 6b61
    """
    with guard(json_output, interrupted=f"See whether it took effect with:  shardwork job show {job_id}"):
        from .. import access, render, views

        async def closed(client: AsyncClient) -> JobStatus:
            return await (await client.job(job_id)).close_people(stage)

        job = access.run(context, closed)
        if json_output:
            emit(views.job_json(job))
        else:
            # asked again, when all is over, it says no more than is true
            goes_on = "" if job.is_final else "; the stage goes on with the answers that it has"
            say(f"● People are asked no more{goes_on}.")
            render.show(render.job_brief(job))


@app.command()
def vote(
    where: Annotated[str, typer.Argument(metavar="LINK|JOB", help="The link you were sent, or a job's id.")],
    stage: Annotated[str, typer.Argument(metavar="[STAGE]", help="With a job's id: the stage that asks.")] = "",
    web: Annotated[
        str, typer.Option("--web", metavar="URL", envvar="SHARDWORK_WEB", help="The coordinator's web address.")
    ] = "",
    name: Annotated[str, typer.Option("--name", help="What you are called; others don't see it.")] = "terminal",
    payout: Annotated[str, typer.Option("--payout", metavar="ADDRESS", help="Where what you earn may go.")] = "",
    json_output: JsonOption = False,
) -> None:
    """Judge in the terminal, paid as on the page and with its keys: compare, rank, give points, keep or mend rows.

    Example:  shardwork feedback vote https://coordinator.example.com/people#6b61f0a1c2d3/feedback
    """
    with guard(json_output, interrupted="What you answered is kept."):
        from dataclasses import asdict

        import httpx

        from shardwork.client.feedback.annotator import TIMEOUT_S, Annotator, place_of
        from shardwork.config import Home

        from ..feedback.answering import pressed_key
        from ..feedback.voting import introduce, sit

        place = place_of(where, stage, web)
        with httpx.Client(timeout=TIMEOUT_S, follow_redirects=False) as client:
            annotator = Annotator(place, Home.find().key_path("annotator"), client)
            annotator.join(name, payout)
            introduce(annotator)
            done = sit(annotator, pressed_key)
        if json_output:
            emit({"job": place.job, "stage": place.stage, **asdict(done)})


# ---- inside -------------------------------------------------------------------------------------------------------


def _key(name: str) -> str:
    from shardwork.errors import NotAuthenticated

    if not name:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise NotAuthenticated(
            "feedback.no_key",
            f"The variable {name} holds no key.",
            next_step=f"Set it in this shell; the key itself never stands on a command line:  read -rs {name}",
        )
    return key


def _dollars(option: str, text: str, json_output: bool) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or not 0 <= value <= 10**6:
        usage(f"{option} takes dollars, and not {text!r}.", "Write it like 2.50.", json_output)
    return value


def _nanos(option: str, text: str, json_output: bool) -> int:
    return int(_dollars(option, text, json_output) * NANOS_PER_DOLLAR)


def _nanos_of_token(option: str, text: str, json_output: bool) -> int:
    """Rounded up: a cap that is hard rounds against the spender."""
    price = _dollars(option, text, json_output) if text else Decimal(0)
    return int((price * NANOS_PER_DOLLAR / TOKENS_PRICED).to_integral_value(ROUND_CEILING))


def _end(found: Judgement, folder: Path, json_output: bool) -> None:
    if found.problem is not None:
        raise found.problem
    told = {
        "path": str(folder),
        "pairs": found.pairs,
        "judged": found.judged,
        "flips": found.flips,
        "unreadable": found.unreadable,
        "lost": found.lost,
        "left": found.left,
        "appeals": found.appeals,
        "calls": found.calls,
        "tokens": found.tokens,
        "usd": found.nanos / NANOS_PER_DOLLAR,
    }
    if json_output:
        emit(told)
    else:
        say(
            f"✓ {folder}: {found.judged:,} of {found.pairs:,} pairs judged, {found.flips:,} flips; {found.calls:,} "
            f"calls, {found.tokens:,} tokens, {told['usd']:.4f} USD"
        )
        if found.appeals:
            say(f"! {found.appeals:,} pairs were not asked: an answer speaks to the judge")
    if found.left:
        _capped(found, json_output)


def _capped(found: Judgement, json_output: bool) -> NoReturn:
    if not json_output:
        say(f"! {found.left:,} pairs are left: they might not fit the cap.\n→ raise it and run the same command again")
    raise typer.Exit(6)
