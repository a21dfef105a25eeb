"""What a requester gets back: frozen records with their units in the names, and no wire messages in them.

Money is integer millisatoshi (`_msat`), times are Unix milliseconds (`_unix_ms`) or seconds. `received` makes these
from the wire; everything that shows or computes takes these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..feedback.samples import SampleRow
from ..problem import Problem
from ..why import Why

FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of a stage."""

    number: int
    #: setup, learn, map, publish
    kind: str
    state: str
    #: the phase it is in; empty once it has ended
    phase: str = ""
    train_loss: float | None = None
    #: on held-out rows
    eval_loss: float | None = None
    #: the outer step that was chosen; empty before
    outer: str = ""
    accepted: int = 0
    rejected: int = 0
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    #: what its recipe measured beside losses: reward, kl, length …
    measures: Mapping[str, float] = field(default_factory=dict[str, float])
    paid_msat: int = 0
    fees_msat: int = 0
    #: that its shards of work hold; told by reports only
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """How often a policy's answers won by votes; a tie is half a win. `low` and `high`: a 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    name: str
    recipe: str
    #: waiting, running, done, failed, cancelled, skipped
    state: str
    planned_rounds: int
    rounds: tuple[Round, ...] = ()
    #: why it was skipped, or ended before its planned rounds
    why: Why | None = None
    #: whose checkpoint is published; 0 while there is none
    best_round: int = 0
    #: what the published model knows by heart: "train.rows", "train.reproduced", "train.longest_run" and
    #: "train.mean_run" (tokens), and the same of "held_out"; empty until it is published
    memorised: Mapping[str, float] = field(default_factory=dict[str, float])
    #: the checkpoint that it began with, and what of it goes on; empty when it began anew
    continues_from: str = ""
    #: of a policy, prompts of the safety set and how many were refused: "harmful.asked", "harmful.refused_before" (by
    #: its base), "harmful.refused_after" (by what it published), and of "harmless" and "plain"; empty until published
    safety: Mapping[str, float] = field(default_factory=dict[str, float])
    #: what its recipe warns of, each kind once
    alarms: tuple[Why, ...] = ()
    #: which time of the job's loop it belongs to; 0: none
    iteration: int = 0
    spent_msat: int = 0
    #: of a policy, against what was before it; None while no votes compared it
    win_rate: WinRate | None = None
    #: of a policy: its reward when it began, and its best
    reward_start: float | None = None
    reward_best: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Something a job made that can be downloaded."""

    #: "<stage>.model", "<stage>.rows"
    name: str
    #: model, adapter, rows, report
    kind: str
    artifact_id: str
    bytes: int
    #: given up, or older than it is kept: its bytes are gone
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job as it is at one moment."""

    id: str
    name: str
    #: draft, funded, running, paused, succeeded, failed, cancelled
    state: str
    #: why it waits, rests or failed
    why: Why | None = None
    stages: tuple[Stage, ...] = ()
    #: number of shards by state
    shards: Mapping[str, int] = field(default_factory=dict[str, int])
    budget_msat: int = 0
    reserved_msat: int = 0
    spent_msat: int = 0
    refunded_msat: int = 0
    outputs: tuple[Output, ...] = ()
    #: no second key confirmed what it started from, measured or published
    self_evaluated: bool = False
    created_unix_ms: int = 0
    #: 0 while it goes on
    ended_unix_ms: int = 0
    #: low, normal or high, among its owner's jobs
    priority: str = "normal"
    #: what results given for nothing would have cost
    donated_msat: int = 0
    #: of the budget: added later, and not reserved by a round yet
    topped_up_msat: int = 0
    #: when its time-out ends it; 0: never
    deadline_unix_ms: int = 0

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_STATES

    def _repr_html_(self) -> str:
        from .display.notebook import job_html

        return job_html(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlCost:
    """What pausing, resuming, cancelling or topping up a job would cost at this moment."""

    #: in words
    why: Why
    #: leased right now, and their pay and fees
    running_shards: int
    running_msat: int
    #: whether they would still be paid when their results are valid
    running_paid: bool
    #: results that passed their checks, and would be paid beside that
    handed_in_msat: int
    #: back to the balance at once
    refund_msat: int
    stays_reserved_msat: int
    from_balance_msat: int
    balance_after_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a job."""

    sequence: int
    at_unix_ms: int
    #: "job.running", "shard.expired", "round.merged"
    kind: str
    subject: str
    sentence: str
    evidence: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of a job's log: something that happened to it, to a stage, to a round, or to one attempt at a shard."""

    sequence: int
    at_unix_ms: int
    #: "shard.leased", "shard.progress", "shard.uploaded", "shard.accepted", "shard.rejected", "round.merged"
    kind: str
    #: in words, with the worker's short id
    sentence: str
    #: where it happened; empty or None where it concerns more than that
    stage: str = ""
    round: int | None = None
    phase: str = ""
    shard: str = ""
    #: the shard's copy, from 0, and which lease of that copy this was, from 1
    copy: int | None = None
    attempt: int | None = None
    worker_id: str = ""
    #: of the reason, where there is one: "check.loss_range", "lease.silent"
    code: str = ""
    evidence: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningShard:
    shard: str
    phase: str
    worker_id: str
    worker_name: str
    #: 0 to 1
    progress: float
    loss: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One message of a watch: what happened since the one before, and how things are now."""

    events: tuple[Event, ...]
    #: None when only events came
    status: JobStatus | None
    running: tuple[RunningShard, ...]
    is_final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShare:
    """What one worker did for a job."""

    worker_id: str
    name: str
    shards: int
    accepted: int
    rejected: int
    paid_msat: int
    #: accepted results that it gave for nothing, and what they would have cost
    donated: int = 0
    donated_msat: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPayment:
    shard: str
    replica: int
    worker_id: str
    phase: str
    msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePrice:
    """What one phase of a stage costs, and how that comes about."""

    stage: str
    phase: str
    #: how often it is run, its shards each time, and the keys that must agree on each shard
    rounds: int
    shards: int
    copies: int
    #: of its largest shard; the fee comes on top of the price
    work_units: int
    price_msat: int
    fee_msat: int
    #: of all rounds, shards and copies with fees; the reserve holds spare copies as well
    total_msat: int
    reserve_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The coordinator's price of a plan."""

    shards: int
    rounds: int
    estimate_low_msat: int
    estimate_high_msat: int
    compute_msat: int
    verification_msat: int
    fees_msat: int
    #: held at submit, and the hard cap
    reserve_msat: int
    seconds_low: float
    seconds_high: float
    upload_bytes_per_shard: int
    download_bytes_per_shard: int
    warnings: tuple[Why, ...] = ()
    phases: tuple[PhasePrice, ...] = ()
    #: a shard's price: so much for 10^12 work units, at least this; and the house's share on top
    msat_per_tera_unit: int = 0
    minimum_shard_msat: int = 0
    fee_basis_points: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSpent:
    """What the workers of a phase were paid, without the house's fees."""

    phase: str
    #: paid ones
    results: int
    paid_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a stage's model wrote when it was published; whoever published it says so."""

    stage: str
    prompt: str
    completion: str
    #: what the model wrote before this stage; None where there was none
    base: str | None = None
    #: how the row really goes on; empty where the prompt is of no row
    expected: str = ""
    #: whose row the prompt begins: "held_out", "train", or "order" where it is of no row
    side: str = "order"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesPage:
    """Rows of an output as they are read side by side. What they say is strangers' text, cut where it is long."""

    output: Output
    #: whose answers to the same prompts stand beside
    beside: Output | None
    samples: tuple[SampleRow, ...]
    #: bytes of the file: where this page begins, where the next one does (None: nothing follows), and all of it
    at: int
    next_at: int | None
    file_bytes: int
    #: lines that are no rows
    problems: tuple[Problem, ...]
    #: the other output holds more than one page reads, and not every prompt was found in it
    beside_unread: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A job, who worked for it, every payment, what it was priced at, and samples of what it learned."""

    status: JobStatus
    workers: tuple[WorkerShare, ...]
    payments: tuple[ShardPayment, ...]
    #: older payments of a large job; the workers' sums hold all
    payments_left_out: int
    #: what it was priced at when it was submitted, counts and sums only; None from an older coordinator
    quote: Quote | None = None
    spent: tuple[PhaseSpent, ...] = ()
    samples: tuple[Sample, ...] = ()

    @property
    def fees_msat(self) -> int:
        """The house's share of what was spent."""
        return self.status.spent_msat - sum(worker.paid_msat for worker in self.workers)

    def html(self) -> str:
        """The report as one self-contained HTML document, to keep, print or send on."""
        from .display.document import document

        return document(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    available_msat: int
    #: in the escrow of live jobs, or on its way out
    held_msat: int
    #: as a worker
    paid_out_msat: int
    earned_msat: int
    #: "simulated" or "bitcoin"
    asset: str

    @property
    def is_simulated(self) -> bool:
        return self.asset == "simulated"

    def _repr_html_(self) -> str:
        from .display.notebook import balance_html

        return balance_html(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposit:
    id: str
    msat: int
    #: what to pay, as Lightning writes it
    invoice: str
    payment_hash: str
    #: open, settled, expired
    state: str
    expires_unix_ms: int
    is_simulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """A balance on its way out. Nothing is ever sent twice."""

    id: str
    msat: int
    #: held on top; what the payment does not cost returns
    fee_limit_msat: int
    address: str
    #: created, bound, sent, settled, failed, unknown; an unknown one keeps its sats held and is asked about again
    state: str
    #: of a failed or unknown one
    why: Why | None
    payment_hash: str
    #: the receipt, once settled
    preimage: str
    is_simulated: bool
    created_unix_ms: int

    @property
    def is_final(self) -> bool:
        return self.state in ("settled", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One line of an account's history."""

    sequence: int
    id: str
    at_unix_ms: int
    #: positive is in, negative is out
    msat: int
    #: deposit, escrow, refund, shard, fee, payout, withdrawal
    kind: str
    #: pending, posted, voided
    state: str
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Whom a coordinator knows us as, and where its join line is remembered."""

    party_id: str
    join: str
    config_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """An output that lies in a folder now."""

    output: Output
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArtifact:
    """Content that the coordinator keeps for this requester."""

    id: str
    #: input, output, result, executor, hub
    kind: str
    bytes: int
    created_unix_ms: int
    #: 0: no date; `why` says what keeps it
    kept_until_unix_ms: int
    why: Why
