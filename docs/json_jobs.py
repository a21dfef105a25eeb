"""The shapes of `--json` outputs about jobs, and what other shapes are made of: reasons, problems, errors.

Part of `json_shapes`, which says what they are for.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Why(Shape):
    """Why something is as it is; empty texts where nothing is in its way."""

    code: str
    sentence: str
    evidence: dict[str, str]
    next_step: str


class Problem(Shape):
    """One mistake in a file, or one thing to know about it."""

    file: str
    line: int | None
    key: str
    code: str
    sentence: str
    fix: str


class ErrorBody(Why):
    exit_code: int
    #: every mistake, where a file has several
    errors: list[Problem] = []


class Error(Shape):
    """What goes to stderr when a command fails."""

    error: ErrorBody


# ---- jobs -----------------------------------------------------------------------------------------------------------


class Round(Shape):
    number: int
    kind: str
    state: str
    phase: str
    train_loss: float | None
    eval_loss: float | None
    outer: str | None
    accepted: int
    rejected: int
    seconds: float
    bytes_up: int
    bytes_down: int
    #: what its recipe measured beside losses: reward, kl, length …
    measures: dict[str, float | None]
    paid_msat: int
    fees_msat: int
    #: that its shards of work hold; in reports
    tokens: int = 0


class WinRate(Shape):
    """A tie is half a win; 95 % interval."""

    value: float
    low: float
    high: float


class Stage(Shape):
    name: str
    recipe: str
    state: str
    planned_rounds: int
    why: Why | None
    best_round: int | None
    memorised: dict[str, float] | None
    continues_from: str = ""
    #: prompts of the safety set, and how many the base and the published model refused
    safety: dict[str, float] | None
    #: which time of the job's loop it belongs to
    iteration: int = 0
    spent_msat: int
    #: of a policy, against what was before it, where votes compared them
    win_rate: WinRate | None
    reward_start: float | None
    reward_best: float | None
    #: what its recipe warns of, each kind once
    alarms: list[Why]
    rounds: list[Round]


class Output(Shape):
    name: str
    kind: str
    digest: str
    bytes: int
    #: given up, or older than it is kept
    deleted: bool


class Job(Shape):
    """`job show`, and what `pause`, `resume` and `cancel` leave."""

    id: str
    name: str
    state: Literal["draft", "funded", "running", "paused", "succeeded", "failed", "cancelled"]
    why: Why | None
    stages: list[Stage]
    shards: dict[str, int]
    budget_msat: int
    reserved_msat: int
    spent_msat: int
    refunded_msat: int
    outputs: list[Output]
    self_evaluated: bool
    created_unix_ms: int
    ended_unix_ms: int | None
    priority: str
    donated_msat: int
    topped_up_msat: int
    deadline_unix_ms: int | None


class JobList(Shape):
    """Newest first; stages without their rounds."""

    jobs: list[Job]
    #: whether there are older ones
    more: bool


class Cost(Why):
    running_shards: int
    running_msat: int
    running_paid: bool
    handed_in_msat: int
    refund_msat: int
    stays_reserved_msat: int
    from_balance_msat: int
    balance_after_msat: int


class ToppedUp(Job):
    cost: Cost


class WorkerShare(Shape):
    id: str
    name: str
    shards: int
    accepted: int
    rejected: int
    paid_msat: int
    donated: int
    donated_msat: int


class Payment(Shape):
    shard: str
    replica: int
    worker: str
    phase: str
    msat: int


class Span(Shape):
    low: float
    high: float


class SubmittedQuote(Shape):
    shards: int
    rounds: int
    estimate_msat: Span
    compute_msat: int
    verification_msat: int
    fees_msat: int
    reserve_msat: int


class PhaseSpent(Shape):
    phase: str
    results: int
    paid_msat: int


class Sample(Shape):
    stage: str
    side: Literal["held_out", "train", "order"]
    prompt: str
    base: str | None
    completion: str
    expected: str | None


class Iteration(Shape):
    """One time of a job's loop: its last policy, what votes say of it, and what all its stages cost."""

    iteration: int
    reward_start: float | None
    reward_best: float | None
    #: on held-out rows, where nothing has a reward
    loss_start: float | None
    loss_best: float | None
    #: of held-out pairs, by its reward model or by DPO
    accuracy: float | None
    #: nats an answer, and tokens, of the last round that told them
    kl: float | None
    length: float | None
    win_rate: WinRate | None
    cost_msat: int
    state: str
    #: why it was skipped or ended early, or the first alarm of it
    why: Why | None


class Report(Job):
    workers: list[WorkerShare]
    payments: list[Payment]
    payments_left_out: int
    fees_msat: int
    quote: SubmittedQuote | None
    spent: list[PhaseSpent]
    samples: list[Sample]
    #: of a job with a loop
    iterations: list[Iteration]


class Event(Shape):
    """One line of `job events --follow` and of `job watch`."""

    sequence: int
    at_unix_ms: int
    kind: str
    subject: str
    sentence: str
    evidence: dict[str, str]


class Events(Shape):
    events: list[Event]


class Final(Shape):
    """The last line of `job watch`."""

    kind: Literal["job.final"]
    job: Job


class WatchLine(RootModel[Event | Final]):
    """JSON Lines: every event, and at the end the job."""


class LogLine(Shape):
    """JSON Lines."""

    sequence: int
    at_unix_ms: int
    kind: str
    sentence: str
    stage: str | None
    round: int | None
    phase: str | None
    shard: str | None
    copy_: int | None = Field(alias="copy")
    attempt: int | None
    worker: str | None
    code: str | None
    evidence: dict[str, str]


class JobWhy(Why):
    id: str
    state: str
    reasons: list[Why]


class Downloaded(Output):
    path: str


class Downloads(Shape):
    id: str
    outputs: list[Downloaded]


class Submitted(Shape):
    """One line; with --watch, the lines of `job watch` follow."""

    id: str


class Kind(Shape):
    kind: str
    purpose: str


class Kinds(Shape):
    kinds: list[Kind]


class Written(Shape):
    kind: str
    path: str


class JobTemplate(RootModel[Written | Kinds]):
    """What was written; without KIND, the kinds there are."""


class ValidStage(Shape):
    name: str
    recipe: str
    continue_from: str = ""


class Valid(Shape):
    valid: bool
    name: str
    stages: list[ValidStage]
    budget_msat: int
    errors: list[Problem]
    warnings: list[Problem]
