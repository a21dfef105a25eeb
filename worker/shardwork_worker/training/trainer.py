# pyright: standard
"""The worker's Trainer: `shardwork.recipes.base.Trainer` on one torch device, warm between shards.

Owns which device and how many threads, and one kept model: rounds of a job tune the same base, and loading it costs
more than a short shard. What is kept is only a cache: every learning weight is overwritten by the shard's checkpoint,
frozen weights never change, so a shard's result does not depend on it (a test compares).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shardwork.recipes.alignment.orders import AuditOrder, GenerateOrder, JudgeOrder, ScoreOrder
from shardwork.recipes.base import Computed, Context
from shardwork.recipes.orders import EvaluateOrder, InitOrder, LearnOrder, PublishOrder, Tuning

from .checkpoints import load_weights
from .device import release, seed_all, settle, use_threads
from .evaluate import evaluate
from .generation.audit import Auditor
from .generation.generate import generate
from .generation.judge import judge
from .generation.plain import AS_IT_LIES, REWARD, plain
from .generation.score import score
from .init import init
from .learn import Given, follow, learn
from .micro import MicroBatch, Sizes
from .model import Built, build
from .publish import publish
from .team.team import ALONE, Crew, Team, devices_of, shard_message


@dataclass(frozen=True, slots=True)
class ModelKey:
    """Which model is kept: the base's files as they lie on disk, and how it is tuned."""

    files: tuple[tuple[str, int, int, int], ...]
    folder: Path
    tuning: Tuning
    from_scratch: bool
    #: checkpoints are loaded into it; without, its weights are the base's
    learns: bool

    @classmethod
    def of(cls, base: Path, tuning: Tuning, from_scratch: bool, *, learns: bool = True) -> ModelKey:
        stats = [(str(path.relative_to(base)), path.stat()) for path in sorted(base.rglob("*")) if path.is_file()]
        files = tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
        return cls(files, base.resolve(), tuning, from_scratch, learns)


class TorchTrainer:
    """Runs the phases of a learning job on `device` ("cpu", "cuda:0", "mps"; "cuda*4": learning on four at once)."""

    def __init__(self, device: str) -> None:
        devices = devices_of(device)
        self._device = settle(devices[0])
        self._crew = Crew(devices) if len(devices) > 1 else None
        self._kept: tuple[ModelKey, Built] | None = None
        self._sizes = Sizes()

    def init(self, order: InitOrder, context: Context) -> Computed:
        use_threads(1)
        self.release_memory()
        return init(order, context)

    def learn(self, order: LearnOrder, context: Context) -> Computed:
        use_threads(order.threads)
        if self._crew is not None:
            self._crew.start()
            self._crew.tell(shard_message(order.canonical_json(), context.seed, context.inputs))
        built = self._built(order.tuning, order.from_scratch, context)
        seed_all(context.seed)
        with self._fitting(order) as micro:
            return learn(order, context, built, micro, self._crew.team if self._crew else ALONE)

    def follow(self, order: LearnOrder, context: Given, team: Team) -> None:
        """Learns as a further rank of a team."""
        use_threads(order.threads)
        built = self._built(order.tuning, order.from_scratch, context)
        seed_all(context.seed)
        with self._fitting(order) as micro:
            follow(order, context, built, micro, team)

    def evaluate(self, order: EvaluateOrder, context: Context) -> Computed:
        use_threads(order.threads)
        return evaluate(order, context, self._built(order.tuning, order.from_scratch, context))

    def publish(self, order: PublishOrder, context: Context) -> Computed:
        use_threads(order.threads)
        self.release_memory()
        return publish(order, context, self._device)

    def generate(self, order: GenerateOrder, context: Context) -> Computed:
        use_threads(order.threads)
        built = self._answering(order, context)
        with self._at_once(order) as micro:
            return generate(order, context, built, micro)

    def score(self, order: ScoreOrder, context: Context) -> Computed:
        use_threads(order.threads)
        built = self._plain(REWARD, context)
        with self._at_once(order) as micro:
            return score(order, context, built, micro)

    def judge(self, order: JudgeOrder, context: Context) -> Computed:
        use_threads(order.threads)
        built = self._plain(AS_IT_LIES, context)
        with self._at_once(order) as micro:
            return judge(order, context, built, micro)

    def audit(self, order: AuditOrder, context: Context) -> Computed:
        of = order.of
        use_threads(of.threads)
        match of:
            case GenerateOrder():
                built = self._answering(of, context)
            case ScoreOrder():
                built = self._plain(REWARD, context)
            case JudgeOrder():
                built = self._plain(AS_IT_LIES, context)
        with self._at_once(of) as micro:
            return Auditor(order=order, context=context, built=built, micro=micro).run()

    def release_memory(self) -> None:
        """Drops the kept model."""
        self._kept = None
        release(self._device)

    def close(self) -> None:
        """Ends the other ranks. A team that lost its place in a shard can't be used again."""
        if self._crew is not None:
            self._crew.close()

    @contextmanager
    def _fitting(self, order: LearnOrder) -> Iterator[MicroBatch]:
        """Rows at once for this kind of shard; what fitted is remembered, also when the shard fails later."""
        assert self._kept is not None
        key = (self._kept[0], order.max_length, order.precision, order.gradient_checkpointing)
        micro = self._sizes.start(key, order, self._device)
        try:
            yield micro
        finally:
            self._sizes.keep(key, micro)

    @contextmanager
    def _at_once(self, order: GenerateOrder | ScoreOrder | JudgeOrder) -> Iterator[MicroBatch]:
        """Rows at once where nothing is learned; remembered as for learning."""
        assert self._kept is not None
        key = (self._kept[0], type(order), order.max_length, order.precision)
        micro = self._sizes.at_most(order.batch_size, key, self._device)
        try:
            yield micro
        finally:
            self._sizes.keep(key, micro)

    def _answering(self, order: GenerateOrder, context: Context) -> Built:
        """The model that answers: the base as it lies, or with a checkpoint's weights."""
        if order.tuning is None:
            return self._plain(AS_IT_LIES, context)
        built = self._built(order.tuning, False, context)
        load_weights(built, context.inputs["checkpoint"])
        return built

    def _plain(self, tuning: Tuning, context: Context) -> Built:
        """A model that nothing is loaded into and nothing learns from."""
        key = ModelKey.of(context.inputs["base"], tuning, False, learns=False)
        if self._kept is None or self._kept[0] != key:
            self.release_memory()
            self._kept = (key, plain(context.inputs["base"], tuning, self._device))
        return self._kept[1]

    def _built(self, tuning: Tuning, from_scratch: bool, context: Given) -> Built:
        """The model to load a checkpoint into, kept from the shard before where it is the same."""
        base = context.inputs["base"]
        key = ModelKey.of(base, tuning, from_scratch)
        if self._kept is None or self._kept[0] != key:
            self.release_memory()
            built = build(base, tuning, from_scratch=from_scratch, seed=context.seed, device=self._device)
            self._kept = (key, built)
        built = self._kept[1]
        built.zero_grad()  # an interrupted shard may have left gradients
        return built
