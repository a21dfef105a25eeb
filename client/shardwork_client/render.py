"""Pretty forms of what the client shows: consoles, the house table, and jobs, rounds, money, reports and reasons.

Data goes to stdout, notes to stderr. Names of workers and jobs come from strangers, so all remote text passes `clean`
and is never read as markup. The live view is `live`; the plan page is `plan_page`; JSON forms are `views`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from shardwork.client.display import figures
from shardwork.client.display.refusals import refusals
from shardwork.client.display.trend import Trend, trend
from shardwork.client.waiting import rounds_done
from shardwork.money import show as sats
from shardwork.why import Why

if TYPE_CHECKING:
    from shardwork.client.results import Balance, Event, JobStatus, Round, Stage, StoredArtifact, Transfer
    from shardwork.problem import Problem

#: columns assumed when output is piped, so that ids and sentences are not cut
PIPED_WIDTH = 160
PROBLEMS_SHOWN = 20
#: evidence keys that together say where in a file the fault is; printed as file:line: key
PLACE = ("file", "line", "key")
#: from this width on, tables show traffic too; below the others, only what matters more
WIDE = 100
NARROW = 76
TINY = 60

STATE_STYLES = {
    **dict.fromkeys(("succeeded", "done", "merged", "accepted", "settled", "posted"), "green"),
    **dict.fromkeys(
        ("running", "open", "judging", "merging", "evaluating", "leased", "committed", "submitted"), "cyan"
    ),
    "skipped": "dim",
    **dict.fromkeys(("paused", "waiting", "pending", "funded", "draft", "ready"), "yellow"),
    **dict.fromkeys(("failed", "cancelled", "exhausted", "rejected", "expired", "abandoned", "rolled_back"), "red"),
}
#: shards are counted in this order wherever they are shown
SHARD_STATES = ("done", "running", "ready", "exhausted")


class HouseConsole(Console):
    """rich's console, but a reader that went away is for `outcome.guard` to judge, not exit 1 at once."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """A console over the present stdout or stderr. Piped output is wide and plain; NO_COLOR is honoured."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else int(os.environ.get("COLUMNS") or PIPED_WIDTH)
    return HouseConsole(file=stream, width=width, highlight=False, soft_wrap=False, emoji=False, markup=False)


def show(page: RenderableType, *, stderr: bool = False) -> None:
    """Prints a page; piped, without the blanks that fill up its columns."""
    out = console(stderr=stderr)
    if out.is_terminal:
        out.print(page)
        return
    with out.capture() as captured:
        out.print(page)
    out.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    out.file.flush()


def clean(text: str) -> str:
    """Text from elsewhere with control characters made visible as '?': nobody's name may drive the terminal."""
    return "".join(char if char.isprintable() else " " if char in "\n\t" else "?" for char in text)


def prose(text: str) -> str:
    """A longer text from elsewhere, cleaned, with its lines and their indents kept."""
    return "\n".join(clean(line.expandtabs(4)) for line in text.splitlines())


def table(*columns: str, right: Sequence[str] = (), fold: Sequence[str] = ()) -> Table:
    """The house table: no boxes, dim headings, numbers to the right; only `fold` columns may wrap."""
    grid = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in columns:
        if name in fold:
            grid.add_column(name, overflow="fold")
        else:
            grid.add_column(name, justify="right" if name in right else "left", no_wrap=True, overflow="ellipsis")
    return grid


def pairs(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    """Label and value side by side; values wrap under themselves."""
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in rows:
        grid.add_row(label, value)
    return grid


def state_text(state: str) -> Text:
    return Text(state.replace("_", " "), style=STATE_STYLES.get(state, ""))


# ---- reasons --------------------------------------------------------------------------------------------------


def why_block(why: Why, *, mark: str, style: str) -> RenderableType:
    """What happened, its evidence line by line, then the next step behind an arrow."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(mark, style=style), Text(clean(why.sentence), style="bold"))
    for line in evidence_lines(why.evidence):
        grid.add_row("", Text(line, style="dim"))
    if why.next_step:
        grid.add_row(Text("→", style="cyan"), Text(clean(why.next_step)))
    return grid


def evidence_lines(evidence: Mapping[str, str]) -> list[str]:
    """`file:line: key` first, then every other fact as "name: value"."""
    where = place(evidence)
    skipped = PLACE if where else ()
    facts = [f"{key.replace('_', ' ')}: {value}" for key, value in evidence.items() if value and key not in skipped]
    return [clean(line) for line in ([where] if where else []) + facts]


def place(evidence: Mapping[str, str]) -> str:
    """`train.jsonl:7: messages` from the evidence keys file, line and key; empty when no file is named."""
    if not evidence.get("file"):
        return ""
    line = f":{evidence['line']}" if evidence.get("line") else ""
    key = f": {evidence['key']}" if evidence.get("key") else ""
    return f"{evidence['file']}{line}{key}"


def show_why(why: Why, *, failed: bool) -> None:
    """Prints a reason on stderr: an error, or a warning."""
    mark, style = ("✗", "bold red") if failed else ("!", "bold yellow")
    show(why_block(why, mark=mark, style=style), stderr=True)


def problem_block(problem: Problem, *, failed: bool) -> RenderableType:
    """One problem of a file: the sentence, its place, the fix."""
    where = {"file": problem.file, "line": str(problem.line or ""), "key": problem.key}
    why = Why(code=problem.code, sentence=problem.sentence, evidence=where, next_step=problem.fix)
    mark, style = ("✗", "bold red") if failed else ("!", "bold yellow")
    return why_block(why, mark=mark, style=style)


def show_problems(problems: Sequence[Problem], *, failed: bool) -> None:
    """Prints the first problems of a file on stderr, and how many more there are."""
    for problem in problems[:PROBLEMS_SHOWN]:
        show(problem_block(problem, failed=failed), stderr=True)
    if len(problems) > PROBLEMS_SHOWN:
        show(Text(f"  … and {len(problems) - PROBLEMS_SHOWN} more; --json lists all.", style="dim"), stderr=True)


# ---- jobs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobList:
    """One aligned line a job with the name last, and under it why it does not run on. Narrow: without its time; where
    even that is too wide, the name has its own line."""

    jobs: Sequence[JobStatus]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        dated, apart = options.max_width >= NARROW, options.max_width < TINY
        money = [f"{sats(job.spent_msat)} of {sats(job.budget_msat)}" for job in self.jobs]
        width = max(len(text) for text in (*money, "spent of budget"))
        created = f"  {'created':<16}" if dated else ""
        yield one_line(
            Text(
                f"{'id':<12}  {'state':<9}  {'spent of budget':>{width}}{created}{'' if apart else '  name'}",
                style="dim",
            )
        )
        for job, spent in zip(self.jobs, money, strict=True):
            state = state_text(job.state)
            state.pad_right(9 - len(state))
            when = f"  {figures.day_time(job.created_unix_ms)}" if dated else ""
            name = clean(job.name)
            line = Text.assemble(f"{job.id:<12}  ", state, f"  {spent:>{width}}", (when, "dim"))
            yield one_line(line if apart else line.append(f"  {name}"))
            if apart:
                yield one_line(Text(f"{'':<12}  {name}"))
            if job.why and job.state != "succeeded":
                yield one_line(Text(f"{'':<12}  {clean(job.why.sentence)}", style="dim"))


def one_line(text: Text) -> Text:
    """Cut with an ellipsis where the terminal ends, never wrapped."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def job_head(job: JobStatus) -> RenderableType:
    """Name, id, state and, for a job no second key evaluated, that fact."""
    head = Text.assemble((clean(job.name), "bold"), ("  " + job.id, "dim"), "  ", state_text(job.state))
    if job.self_evaluated:
        head.append("  self-evaluated", style="yellow")
    return head


def job_page(job: JobStatus) -> RenderableType:
    """`job show`: everything about one job."""
    parts: list[RenderableType] = [job_head(job)]
    if job.why and job.state != "succeeded":
        parts.append(Padding(why_block(job.why, mark="●", style="yellow"), (1, 0, 0, 0)))
    for stage in job.stages:
        parts += [Text(""), stage_head(stage)]
        if stage.why:
            parts.append(why_block(stage.why, mark="●", style="yellow"))
        parts += [why_block(each, mark="▲", style="red") for each in stage.alarms]
        if told := refusals(stage):
            parts.append(Text(clean(told), style="dim"))
        if stage.rounds:
            parts.append(Rounds(stage))
    facts: list[tuple[str, RenderableType]] = [("shards", shard_counts(job))]
    if (known := trend(job)) is not None:
        facts.append((known.label, trend_line(known, width=40)))
    facts += [("money", money_line(job)), ("time", time_line(job))]
    parts += [Text(""), pairs(facts)]
    if job.outputs:
        parts += [Text(""), outputs_table(job)]
    return Group(*parts)


def stage_head(stage: Stage) -> Text:
    """ "sft  sft  running  2 of 4 rounds"."""
    rounds = f"{rounds_done(stage)} of {stage.planned_rounds} round{'s' if stage.planned_rounds != 1 else ''}"
    best = f", round {stage.best_round} is the best so far" if stage.best_round and stage.state == "running" else ""
    best = f", round {stage.best_round} published" if stage.best_round and stage.state == "done" else best
    begun = f", continues from {clean(stage.continues_from)}" if stage.continues_from else ""
    return Text.assemble(
        (stage.name, "bold"), (f"  {stage.recipe}  ", "dim"), state_text(stage.state), f"  {rounds}{best}{begun}"
    )


@dataclass(frozen=True, slots=True)
class Rounds:
    """The rounds of a stage: losses, verdicts, time and, where there is room, traffic."""

    stage: Stage

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        without = _meaningless(self.stage)
        shown = [name for name, least in _ROUND_COLUMNS if options.max_width >= least and name not in without]
        numbers = [column for column in shown if column != "outer"]
        grid = table("round", "state", *shown, right=numbers)
        for each in self.stage.rounds:
            values = round_figures(each)
            grid.add_row(round_name(each), state_text(each.state), *(values[column] for column in shown))
        yield grid


def _meaningless(stage: Stage) -> set[str]:
    """Columns that no round of this stage fills: a policy has rewards, others have losses, and some learn nothing."""
    measured = {name for each in stage.rounds for name in each.measures}
    without = {name for name in ("reward", "kl", *_JUDGED) if name not in measured}
    if any(each.kind == "map" for each in stage.rounds):
        return without | {"train", "held-out", "outer"}
    return without | ({"held-out"} if "reward" in measured else set())


def round_name(view: Round) -> str:
    return str(view.number) if view.kind in ("learn", "map") else view.kind


#: measures of a judge: pairs, preference rows that they became, pairs whose two orders disagree
_JUDGED = ("pairs", "rows", "flipped")
#: columns of a round, and the width from which on they are shown
_ROUND_COLUMNS = (
    *(
        ("train", 0),
        ("held-out", 0),
        ("reward", 0),
        ("kl", 0),
        *((name, 0) for name in _JUDGED),
        ("outer", NARROW),
        ("accepted", NARROW),
        ("rejected", 64),
        ("time", 54),
    ),
    *(("up", WIDE), ("down", WIDE)),
)


def round_figures(view: Round) -> dict[str, RenderableType]:
    """What `_ROUND_COLUMNS` names, of one round."""
    return {
        "train": figures.loss(view.train_loss),
        "held-out": figures.loss(view.eval_loss),
        "reward": figures.loss(view.measures.get("reward")),
        "kl": figures.loss(view.measures.get("kl")),
        **{name: f"{view.measures[name]:.0f}" if name in view.measures else "–" for name in _JUDGED},
        "outer": view.outer or "–",
        "accepted": str(view.accepted),
        "rejected": Text(str(view.rejected), style="red" if view.rejected else "dim"),
        "time": figures.duration(view.seconds),
        "up": figures.size(view.bytes_up),
        "down": figures.size(view.bytes_down),
    }


def trend_line(known: Trend, *, width: int) -> Text:
    """First value, sparkline, last value and the change between them."""
    if len(known.values) == 1:
        return Text(figures.loss(known.values[0]))
    return Text.assemble(
        (figures.loss(known.values[0]) + " ", "dim"),
        (figures.sparkline(known.values, width), "cyan"),
        " ",
        (figures.loss(known.values[-1]), "bold"),
        ("  " + known.change, "green" if known.is_better else "red"),
    )


def shard_counts(job: JobStatus) -> Text:
    """ "12 done · 3 running · 1 ready", zero counts left out."""
    text = Text()
    for state in (*SHARD_STATES, *sorted(set(job.shards) - set(SHARD_STATES))):
        number = job.shards.get(state, 0)
        if number:
            text.append(" · " if text else "").append(f"{figures.count(number)} ").append_text(state_text(state))
    return text or Text("none yet", style="dim")


def money_line(job: JobStatus) -> Text:
    """The identity that always holds: budget = spent + reserved + refunded."""
    text = Text.assemble(sats(job.budget_msat), (" budget = ", "dim"))
    parts = ((job.spent_msat, "spent"), (job.reserved_msat, "reserved"), (job.refunded_msat, "refunded"))
    for amount, word in parts:
        text.append("" if word == "spent" else " + ", "dim").append(sats(amount).removesuffix(" sat"))
        text.append(f" {word}", "dim")
    return text


def time_line(job: JobStatus) -> str:
    begun = figures.day_time(job.created_unix_ms)
    if not job.ended_unix_ms:
        return f"since {begun}"
    return f"{begun}, took {figures.duration((job.ended_unix_ms - job.created_unix_ms) / 1000)}"


def outputs_table(job: JobStatus) -> Table:
    grid = table("output", "kind", "size", "digest", right=("size",))
    for output in job.outputs:
        size = Text("deleted", style="dim") if output.deleted else figures.size(output.bytes)
        grid.add_row(output.name, output.kind, size, Text(f"{output.artifact_id[:16]}…", style="dim"))
    return grid


def event_line(event: Event, *, brief: bool = False) -> Text:
    """One event on one line: time, kind, sentence, subject; brief, its time and the sentence alone."""
    tone = event.kind.rsplit(".", 1)[-1]
    subject = clean(event.subject).partition("/")[2]  # without the job's id, which everybody here knows
    if brief:
        return Text.assemble((figures.clock_time(event.at_unix_ms) + "  ", "dim"), clean(event.sentence))
    return Text.assemble(
        (figures.clock_time(event.at_unix_ms) + "  ", "dim"),
        (f"{event.kind:<18}  ", STATE_STYLES.get(tone, "")),
        clean(event.sentence),
        (f"  {subject}" if subject else "", "dim"),
    )


# ---- money ----------------------------------------------------------------------------------------------------


def balance_page(balance: Balance) -> RenderableType:
    rows: list[tuple[str, RenderableType]] = [
        ("available", Text(sats(balance.available_msat), style="bold green")),
        ("held in escrow", sats(balance.held_msat)),
    ]
    if balance.earned_msat:
        rows.append(("earned by shards", sats(balance.earned_msat)))
    if balance.paid_out_msat:
        rows.append(("paid out", sats(balance.paid_out_msat)))
    return pairs(rows)


@dataclass(frozen=True, slots=True)
class History:
    """A line a transfer. What it is for may be long: it goes on under itself, or narrow, on a line of its own."""

    transfers: Sequence[Transfer]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        amounts = [f"{'+' if each.msat > 0 else ''}{sats(each.msat)}" for each in self.transfers]
        width = max(map(len, amounts), default=0)
        apart = options.max_width < TINY
        grid = table("when", "amount", "kind", "state", "for", right=("amount",), fold=("for",))
        for each, amount in zip(self.transfers, amounts, strict=True):
            when, style = figures.day_time(each.at_unix_ms), "green" if each.msat > 0 else ""
            state, reference = state_text(each.state), clean(each.reference)
            if apart:
                yield one_line(Text.assemble(f"{when}  ", (f"{amount:>{width}}", style), f"  {each.kind}  ", state))
                yield Text(f"  {reference}", style="dim", overflow="fold")
            else:
                grid.add_row(when, Text(amount, style=style), each.kind, state, reference)
        if not apart:
            yield grid


def artifact_table(artifacts: Sequence[StoredArtifact]) -> Table:
    grid = table("id", "kind", "size", "kept until", "because", right=("size",), fold=("because",))
    for each in artifacts:
        until = figures.day_time(each.kept_until_unix_ms) if each.kept_until_unix_ms else "-"
        grid.add_row(each.id[:12], each.kind, figures.size(each.bytes), until, each.why.sentence)
    return grid


def why_page(job: JobStatus, reasons: Sequence[Why] = ()) -> RenderableType:
    """`job why`: the state and the reason with its code; a job without one says so. Then everything else that bears on
    it: its place in line, retries, refusals, its price."""
    others = [part for each in reasons for part in (Text(""), why_block(each, mark="·", style="dim"))]
    if job.why is None:
        return Group(job_head(job), Text("Nothing holds it up.", style="dim"), *others)
    code = pairs([("code", Text(job.why.code, style="dim"))])
    return Group(job_head(job), Text(""), why_block(job.why, mark="●", style="yellow"), Text(""), code, *others)


def job_brief(job: JobStatus) -> RenderableType:
    """After pause, resume and cancel: the state and the money."""
    return Group(job_head(job), pairs([("shards", shard_counts(job)), ("money", money_line(job))]))
