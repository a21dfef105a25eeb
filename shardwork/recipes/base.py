"""What a recipe is: plan, check, compute, merge; and the small Protocols it is given.

A recipe file is the whole of a job kind. `plan` and `check` run in the coordinator and are light; `compute` runs in the
worker's child (or in the operator's executor for `prepare`, `split`, `merge`, `apply`, `join`) and imports torch, if at
all, only behind the `Trainer` Protocol. The registry that finds recipes is `shardwork.recipes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Protocol

from pydantic import BaseModel

from ..jobs.spec import StageSpec
from ..why import Why
from .alignment.orders import AuditOrder, GenerateOrder, JudgeOrder, ScoreOrder
from .orders import EvaluateOrder, InitOrder, LearnOrder, PublishOrder


class StageType(StrEnum):
    MAP = "map"
    ROUNDS = "rounds"
    #: its shards are leased to people; rounds as a map stage's
    PEOPLE = "people"


class RoundKind(StrEnum):
    """What a round is for: number 0 sets up, then map or learn rounds, then (rounds stages) one that publishes."""

    SETUP = "setup"
    LEARN = "learn"
    MAP = "map"
    PUBLISH = "publish"


#: phases that the operator's executor runs; every other phase is leased to workers
EXECUTOR_PHASES = frozenset({"prepare", "split", "merge", "apply", "join", "grade"})
#: phases whose shards go to people, over the web, and to no worker; beside those that are asked run items shown to one
#: person again, and items whose answer is known: hidden ones, and the first few, whose answer is told
ASK_PHASE, REPEAT_PHASE, GOLD_PHASE, PRACTICE_PHASE = "ask", "repeat", "gold", "practice"
PEOPLE_PHASES = frozenset({ASK_PHASE, REPEAT_PHASE, GOLD_PHASE, PRACTICE_PHASE})
#: the phase of shards that check another one's result
AUDIT_PHASE = "audit"
#: phases whose results a recipe may have audited
AUDITED_PHASES = frozenset({"map", "rollout", "score"})
#: phases whose result needs a reference worker or the agreement of two keys
AGREED_PHASES = frozenset({"init", "evaluate", "publish"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFacts:
    """What the client measured in a stage's files (no torch); prices and plans come from these."""

    rows: int = 0
    tokens: int = 0
    #: parameters a forward pass touches
    run_params: int = 0
    #: parameters an update touches
    trained_params: int = 0
    input_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInput:
    """Everything a phase is planned from. Pure: the same input gives the same shards."""

    job_id: str
    job_name: str
    stage: StageSpec
    round_number: int
    phase: str
    facts: StageFacts
    #: artifacts of the stage so far by name: base, train, eval, checkpoint, outer, parent_checkpoint, step, moments …
    artifacts: Mapping[str, str]
    #: numbers that earlier phases reported: rows, tokens, inner steps taken …
    numbers: Mapping[str, float]
    #: facts for the model card
    card: Sequence[tuple[str, str]] = ()
    #: the job's `trust.aggregate`: "auto", or the rule that deltas are averaged by
    aggregate: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """One shard to be: its frozen order, its inputs by content and its size."""

    index: int
    order_json: str
    #: input name -> artifact id
    inputs: Mapping[str, str]
    #: tokens x parameters, from the plan and never from a report
    work_units: int
    #: bytes a device needs to run it, estimated
    memory_bytes: int = 0
    #: planned tokens, the shard's weight in the mean
    tokens: int = 0
    #: what an accepted result earns, where the job says it and not the rate card
    price_msat: int | None = None
    #: accepted results that it takes, where the job says it
    copies: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a recipe makes of the numbers that a phase reported."""

    #: go into the stage's numbers, for later plans
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])
    #: shown for the round: reward, kl, length …
    measures: Mapping[str, float] = field(default_factory=dict[str, float])
    #: the stage's checkpoint is the best so far
    is_best: bool = False
    #: the stage ends with this round, and why
    stop: Why | None = None
    #: what its owner should look at; a stage tells each code once
    alarms: tuple[Why, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What `observe` is given: the numbers of a phase that just ended, a mapping for each shard in order."""

    stage: StageSpec
    round_number: int
    kind: RoundKind
    phase: str
    metrics: Sequence[Mapping[str, float]]
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A submission as the light check sees it: names, sizes and metrics; never the bytes."""

    outputs: Mapping[str, str]
    output_bytes: Mapping[str, int]
    #: files of each output: path -> size
    output_files: Mapping[str, Mapping[str, int]]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Finding:
    """A check's verdict. `why` is None when the work is accepted."""

    why: Why | None = None

    @property
    def accepted(self) -> bool:
        return self.why is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """What compute hands back: output name -> folder of files, and numbers."""

    outputs: Mapping[str, Path]
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])


class Trainer(Protocol):
    """The worker's torch side, reached by recipes without importing it. Folders in, folders out."""

    def init(self, order: InitOrder, context: Context) -> Computed: ...
    def learn(self, order: LearnOrder, context: Context) -> Computed: ...
    def evaluate(self, order: EvaluateOrder, context: Context) -> Computed: ...
    def publish(self, order: PublishOrder, context: Context) -> Computed: ...
    def generate(self, order: GenerateOrder, context: Context) -> Computed: ...
    def score(self, order: ScoreOrder, context: Context) -> Computed: ...
    def judge(self, order: JudgeOrder, context: Context) -> Computed: ...
    def audit(self, order: AuditOrder, context: Context) -> Computed: ...


class Context(Protocol):
    """What compute may touch: its inputs, an empty folder per output, its seed, and a way to say how far it is."""

    @property
    def inputs(self) -> Mapping[str, Path]:
        """Input name -> folder with the artifact's files (read only)."""
        ...

    @property
    def seed(self) -> bytes: ...

    @property
    def trainer(self) -> Trainer: ...

    def output(self, name: str) -> Path:
        """An empty folder whose files become the output `name`."""
        ...

    def progress(self, fraction: float, *, loss: float | None = None) -> None:
        """Tells the agent how far the shard is (0 to 1). Raises `Interrupted` when the lease was revoked."""
        ...


class Content(StrEnum):
    """What an output of a stage holds, by which a later stage knows whether it can read it."""

    TEXT = "text"
    ANSWERS = "answers"
    PREFERENCES = "preferences"
    VOTES = "votes"
    #: figures, which nothing learns from
    REPORT = "report"
    MODEL = "model"
    ADAPTER = "adapter"
    REWARD_MODEL = "reward model"
    CHECKPOINT = "checkpoint"


class Unaudited:
    """What most recipes answer to the questions that come after a result: nothing to observe, nothing to audit; and to
    those about their place among stages: they read text, and make nothing that others read."""

    def makes(self, stage: StageSpec) -> Mapping[str, Content]:
        return {}

    def reads(self, stage: StageSpec) -> frozenset[Content]:
        return frozenset({Content.TEXT})

    def observe(self, seen: Observed) -> Observation:
        return Observation()

    def audit(self, phase: str, done: ShardPlan, seed: bytes, draw: bytes) -> ShardPlan | None:
        return None

    def audited(self, order_json: str, claimed: Mapping[str, float], found: Mapping[str, float]) -> Finding:
        return Finding()

    def alike(self, phase: str, order_json: str, first: Mapping[str, float], late: Mapping[str, float]) -> bool:
        return True


class Recipe(Protocol):
    """One job kind or one internal phase. Implementations are stateless; the registry holds one instance of each."""

    kind: ClassVar[str]
    stage_type: ClassVar[StageType]
    Params: ClassVar[type[BaseModel]]

    def freeze(self, stage: StageSpec, facts: StageFacts) -> StageSpec:
        """The stage with validated params and every `auto` replaced by a value. Raises InvalidInput."""
        ...

    def learn_rounds(self, stage: StageSpec) -> int:
        """How many learn or map rounds follow set-up."""
        ...

    def phases(self, kind: RoundKind, artifacts: Mapping[str, str]) -> tuple[str, ...]:
        """The ordered phases of a round of this kind, given what the stage has (no "eval": no evaluation)."""
        ...

    def plan(self, given: PlanInput) -> Sequence[ShardPlan]:
        """The shards of `given.phase`, covering its input exactly once."""
        ...

    def check(self, phase: str, order_json: str, reported: Reported) -> Finding:
        """Light, coordinator side: shape, bounds and plausibility. Never loads tensors."""
        ...

    def compute(self, phase: str, order_json: str, context: Context) -> Computed:
        """The pure function itself."""
        ...

    def makes(self, stage: StageSpec) -> Mapping[str, Content]:
        """Outputs of the stage that later stages may name, as `stage.output`, and what they hold."""
        ...

    def reads(self, stage: StageSpec) -> frozenset[Content]:
        """What its `data` may hold where an earlier stage makes it."""
        ...

    def observe(self, seen: Observed) -> Observation:
        """What the numbers of a phase mean for the stage. Pure."""
        ...

    def audit(self, phase: str, done: ShardPlan, seed: bytes, draw: bytes) -> ShardPlan | None:
        """The shard by which another worker checks a sample of the rows of `done`, whose seed this is; `draw` chooses
        them. None: it is accepted as it is. `done` names the inputs and the outputs of what is checked, the audit those
        of them that it reads."""
        ...

    def audited(self, order_json: str, claimed: Mapping[str, float], found: Mapping[str, float]) -> Finding:
        """Whether what an audit (of this order) found bears out what was claimed."""
        ...

    def alike(self, phase: str, order_json: str, first: Mapping[str, float], late: Mapping[str, float]) -> bool:
        """Whether a copy of a shard that came after the first was taken is as good, by what both reported. It is paid
        without an audit then."""
        ...
