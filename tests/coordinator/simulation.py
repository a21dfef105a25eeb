"""A coordinator's core in one process with scripted workers: real machine, engine, granting, ledger, in-memory store.

Workers compute nothing: their results are made up from the shard's id, so that equal shards give equal results. Tests
drive it step by step under a ManualClock; nothing sleeps.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from shardwork.clock import ManualClock
from shardwork.identity.keys import SigningKey
from shardwork.ids import LeaseId
from shardwork.jobs.spec import BudgetSection, JobSpec, PlanSection, StageSpec, TrustSection
from shardwork.recipes import recipe
from shardwork.recipes.alignment.guards.safety import ASKED, Ask
from shardwork.recipes.base import Reported, StageFacts
from shardwork.tensors.columns import columns_id
from shardwork.v1 import work_pb2
from shardwork.why import Why
from shardwork_coordinator.artifacts.retention import HOUSE
from shardwork_coordinator.engine import (
    Engine,
    advance,
    live_replica,
    slice_of_replica,
    slice_of_round,
    start_next_stage,
    write_change,
)
from shardwork_coordinator.events import ExecutorFinished, LeaseLost, Push, ResultCommitted, ResultSubmitted
from shardwork_coordinator.granting import Granting
from shardwork_coordinator.links import Link, Links
from shardwork_coordinator.machine.attempts import lease_id
from shardwork_coordinator.machine.opening import open_job
from shardwork_coordinator.machine.states import LIVE
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import Move, external_account, user_account
from shardwork_coordinator.money.pricing import RateCard, quote
from shardwork_coordinator.records import (
    Artifact,
    ArtifactState,
    Job,
    JobState,
    Lease,
    Outbox,
    OutboxState,
    Replica,
    ReplicaState,
    Round,
    Shard,
    ShardState,
    Transfer,
    TransferKind,
)
from shardwork_coordinator.rpc.jobs import FINAL, _stages, deadline_of  # pyright: ignore[reportPrivateUsage]
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.store import MemoryStore, Store
from shardwork_coordinator.store.base import Transaction

OWNER = "requester0000000"
FACTS = StageFacts(rows=500, tokens=50_000, run_params=1_000_000, trained_params=70_000, input_bytes=10_000)


def fake_id(*parts: object) -> str:
    return hashlib.sha256("/".join(str(part) for part in parts).encode()).hexdigest()


def stored(artifact_id: str, owner: str) -> Artifact:
    """The row of a small artifact that is there."""
    return Artifact(
        id=artifact_id, owner=owner, purpose="input", state=ArtifactState.STORED, bytes=1, leaves=1, created_ms=0
    )


def sft_job(*, rounds: int = 2, shards: int = 2, held_out: bool = True) -> JobSpec:
    stage = StageSpec(
        name="tune",
        recipe="sft",
        base_model="./base",
        data=["train.jsonl"],
        eval_fraction=0.1 if held_out else None,
        plan=PlanSection(rounds=rounds, shards_per_round=shards, inner_steps=5),
    )
    return JobSpec(
        name="test", stages=[stage], trust=TrustSection(data_class="public"), budget=BudgetSection(max_sats=100_000)
    )


def count_job(parts: int = 3) -> JobSpec:
    stage = StageSpec(name="words", recipe="count", data=["a.txt"], plan=PlanSection(shards_per_round=parts))
    return JobSpec(
        name="words", stages=[stage], trust=TrustSection(data_class="public"), budget=BudgetSection(max_sats=100_000)
    )


def answers_job(parts: int = 1) -> JobSpec:
    stage = StageSpec(
        name="answer",
        recipe="generate",
        base_model="./base",
        data=["prompts.jsonl"],
        params={"answers": 1},
        plan=PlanSection(shards_per_round=parts),
    )
    return JobSpec(
        name="answers", stages=[stage], trust=TrustSection(data_class="public"), budget=BudgetSection(max_sats=100_000)
    )


def scored_job(rounds: int = 1) -> JobSpec:
    """A policy whose answers a reward model scores: two audited phases in each round."""
    job = policy_job(rounds)
    params: dict[str, Any] = {name: value for name, value in job.stages[0].params.items() if name != "rewards"}
    stage = job.stages[0].model_copy(update={"recipe": "ppo", "models": {"reward": "./reward"}, "params": params})
    return job.model_copy(update={"stages": [stage]})


def policy_job(rounds: int = 3, *, held_out: bool = True, **params: object) -> JobSpec:
    stage = StageSpec(
        name="policy",
        recipe="grpo",
        base_model="./base",
        data=["prompts.jsonl"],
        eval_fraction=0.1 if held_out else None,
        params={"rewards": {"exact": 1.0}, "answers": 2, "prompts_per_shard": 4, "batch_size": 4, **params},
        plan=PlanSection(rounds=rounds, shards_per_round=2, inner_steps=2),
    )
    return JobSpec(
        name="policy", stages=[stage], trust=TrustSection(data_class="public"), budget=BudgetSection(max_sats=100_000)
    )


class Simulation:
    """One coordinator core, its workers and its clock."""

    def __init__(self, *, workers: int = 3, seed: int = 0, store: Store | None = None) -> None:
        self.clock, self.links, self.store = ManualClock(), Links(), store or MemoryStore()
        self.random = random.Random(seed)
        self.settings = Settings(data_dir="/nonexistent")  # type: ignore[arg-type]
        self.store.start()
        self.engine = Engine(self.store, self.links, self.clock)
        self.granting = Granting(self.engine, SigningKey(bytes(32)), self.settings)
        self.rates = RateCard()
        #: eval losses to report, candidate -> loss, by round
        self.losses: dict[int, float] = {}
        #: and of one stage alone, by its name and round
        self.losses_of: dict[tuple[str, int], float] = {}
        #: what learn shards tell beside losses, by round
        self.learned: dict[int, dict[str, float]] = {}
        #: where the safety set is asked: nobody refuses anything
        self.published = {
            f"safety.{ask}.{name}": float(ASKED[ask] if name == "asked" else 0)
            for ask in Ask
            for name in ("asked", "refused_before", "refused_after")
        }
        for number in range(workers):
            self.attach(f"worker{number:010d}")

    def attach(
        self,
        worker: str,
        *,
        reference: bool = False,
        minimum_msat: int = 0,
        donates: bool = False,
        abilities: Sequence[str] = (),
    ) -> None:
        capability = work_pb2.Capability(
            recipes=["sft", "pretrain", "count", "generate", "judge", "grpo", "ppo"],
            can_train=True,
            memory_bytes=1 << 40,
            abilities=abilities,
        )
        self.links.attach(
            Link(
                worker_id=worker,
                name=worker,
                capability=capability,
                minimum_msat=minimum_msat,
                donates=donates,
                accepting=True,
                reference=reference,
                since_ms=self.clock.now_ms(),
                last_seen_ms=self.clock.now_ms(),
            )
        )

    def detach(self, worker: str) -> None:
        link = self.links.get(worker)
        assert link is not None
        self.links.detach(link)

    async def submit(
        self, spec: JobSpec, *, job_id: str = "job000000001", funds_msat: int = 10**9, owner: str = OWNER
    ) -> str:
        facts = {stage.name: FACTS for stage in spec.stages}
        priced = quote(spec, facts, self.rates)
        world = self.engine.world()
        draft = Job(
            id=job_id,
            owner=owner,
            submission_id=job_id,
            name=spec.name,
            state=JobState.DRAFT,
            spec_json=spec.canonical_json(),
            facts_json=json.dumps(
                {stage.name: {"run_params": 1_000_000, "trained_params": 70_000} for stage in spec.stages}
            ),
            inputs_json=json.dumps({"tune.base_model": fake_id("base"), "tune.data": fake_id("data")})
            if spec.stages[0].recipe == "sft"
            else json.dumps({f"{stage.name}.{key}": fake_id(key) for stage in spec.stages for key in _reads(stage)})
            if spec.stages[0].recipe != "count"
            else json.dumps({f"{stage.name}.data": fake_id("data") for stage in spec.stages}),
            quote_json=priced.to_json(),
            rates_json=self.rates.to_json(),
            budget_msat=priced.reserve_msat,
            created_ms=self.clock.now_ms(),
            deadline_ms=deadline_of(spec, self.clock.now_ms()),
        )

        def work(tx: Transaction) -> list[Push]:
            deposit = Move(
                id=f"deposit/{job_id}",
                debit=external_account("simulated"),
                credit=user_account(owner),
                msat=funds_msat,
                reason="deposit",
                reference="test",
            )
            ledger.apply(tx, deposit, world.now_ms)
            tx.insert(draft)
            for stage in _stages(job_id, spec, facts):
                tx.insert(stage)
            return write_change(tx, job_id, open_job(draft), world) + start_next_stage(tx, job_id, world)

        await self.store.write(work)
        return job_id

    # ---- what happens -----------------------------------------------------------------------------------------

    async def run_effects(self) -> int:
        """The executor finishes everything pending, with outputs named as the real one names them."""

        def pending(tx: Transaction) -> list[Outbox]:
            return tx.find(Outbox, state=OutboxState.PENDING)

        effects = await self.store.read(pending)
        for effect in effects:
            payload = json.loads(effect.payload_json)
            outputs = {name: fake_id(effect.id, name) for name in _executor_outputs(payload)}
            metrics = _executor_metrics(payload)

            def work(
                tx: Transaction,
                effect: Outbox = effect,
                payload: dict[str, str] = payload,
                outputs: dict[str, str] = outputs,
                metrics: dict[str, float] = metrics,
            ) -> list[Push]:
                tx.put(replace(effect, state=OutboxState.DONE))
                for output in outputs.values():
                    tx.put(stored(output, HOUSE))
                round_ = tx.get(Round, payload["job_id"], payload["stage"], payload["round"])
                assert round_ is not None
                event = ExecutorFinished(phase=payload["phase"], outputs=outputs, metrics=metrics)
                return advance(tx, slice_of_round(tx, round_), event, self.engine.world())

            await self.store.write(work)
        return len(effects)

    async def held(self) -> list[Replica]:
        def look(tx: Transaction) -> list[Replica]:
            return tx.find(Replica, state=[str(state) for state in LIVE], order="shard_id")

        return await self.store.read(look)

    async def finish(self, replica: Replica, *, honest: bool = True, refused: Why | None = None) -> None:
        """Commits and submits the replica's result."""
        lease = lease_id(replica)

        def work(tx: Transaction) -> list[Push]:
            world = self.engine.world()
            live = live_replica(tx, lease, replica.worker_id)
            shard = tx.get(Shard, live.shard_id)
            assert shard is not None
            outputs, metrics = self._result(shard, honest=honest, worker=replica.worker_id)
            root = fake_id(outputs, metrics)
            event = ResultCommitted(shard_id=shard.id, number=live.number, output_root=root)
            pushes = advance(tx, slice_of_replica(tx, live), event, world)
            files = {name: {f"{name}.safetensors": 1} for name in outputs}
            if shard.phase == "learn":
                names = ["delta.safetensors", "m.safetensors", "v.safetensors", "update.json"]
                files = {"delta": dict.fromkeys(names, 1)}
            if "counts" in outputs:
                files = {"counts": {"counts.json": 1}}
            reported = Reported(
                outputs=outputs, output_bytes=dict.fromkeys(outputs, 64), output_files=files, metrics=metrics
            )
            finding = recipe(shard.recipe).check(shard.phase, shard.order_json, reported)
            assert finding.accepted, finding.why
            submitted = ResultSubmitted(
                shard_id=shard.id,
                number=live.number,
                outputs=outputs,
                metrics=metrics,
                compute_ms=100,
                bytes_up=10,
                bytes_down=20,
                refused=refused,
            )
            again = live_replica(tx, lease, replica.worker_id)
            return pushes + advance(tx, slice_of_replica(tx, again), submitted, world)

        await self.store.write(work)

    async def lose(self, replica: Replica, *, costs_an_attempt: bool = True) -> None:
        def work(tx: Transaction) -> list[Push]:
            why = Why(code="lease.silent", sentence="it fell silent.")
            event = LeaseLost(
                shard_id=replica.shard_id, number=replica.number, why=why, costs_an_attempt=costs_an_attempt
            )
            current = live_replica(tx, lease_id(replica), replica.worker_id)
            return advance(tx, slice_of_replica(tx, current), event, self.engine.world())

        await self.store.write(work)

    async def job(self, job_id: str = "job000000001") -> Job:
        def look(tx: Transaction) -> Job | None:
            return tx.get(Job, job_id)

        job = await self.store.read(look)
        assert job is not None
        return job

    async def run_to_end(self, job_id: str = "job000000001", *, steps: int = 500) -> Job:
        """Honest workers finish whatever they are given, one at a time, until the job is final."""
        for _ in range(steps):
            self.clock.advance(0.1)
            did = await self.run_effects()
            did += await self.granting.grant()
            for replica in (await self.held())[:1]:
                await self.finish(replica)
                did += 1
            job = await self.job(job_id)
            if job.state in FINAL or not did:
                return job
        raise AssertionError("the job did not end")

    async def check_books(self) -> None:
        """Invariants: books balance, an accepted lease is paid exactly once, nothing else is paid."""
        report = await self.store.read(ledger.check)
        assert report.balanced, [why.render() for why in report.violations]

        def look(tx: Transaction) -> tuple[list[Lease], list[Transfer]]:
            return tx.find(Lease), [one for one in tx.find(Transfer) if one.kind is TransferKind.POST]

        leases, posts = await self.store.read(look)
        await self._check_tallies(leases)
        paid = sorted(str(post.resolves) for post in posts if post.reason == "shard")
        earned = [lease for lease in leases if lease.state is ReplicaState.ACCEPTED and not lease.donated_msat]
        accepted = sorted(f"pay/{lease.id}" for lease in earned)
        assert paid == accepted

    async def _check_tallies(self, leases: list[Lease]) -> None:
        """What the rounds counted is what the leases and shards say."""
        rounds, shards = await self.store.read(lambda tx: (tx.find(Round), tx.find(Shard)))
        verdicts = [one for one in leases if one.state in (ReplicaState.ACCEPTED, ReplicaState.REJECTED)]
        for round_ in rounds:
            mine = [one for one in shards if (one.job_id, one.stage, one.round) == _key(round_)]
            prices = {shard.id: (shard.price_msat, shard.fee_msat) for shard in mine}
            decided = [one for one in verdicts if one.shard_id in prices]
            accepted = [one for one in decided if one.state is ReplicaState.ACCEPTED]
            paid = [prices[one.shard_id] for one in accepted if not one.donated_msat]
            assert (round_.accepted, round_.rejected) == (len(accepted), len(decided) - len(accepted))
            assert round_.donated_msat == sum(one.donated_msat for one in accepted)
            assert (round_.paid_msat, round_.fees_msat) == (sum(p for p, _ in paid), sum(f for _, f in paid))
            current = [one for one in mine if one.phase == round_.phase]
            assert round_.shards_left == sum(1 for one in current if one.state is not ShardState.DONE)

    def _result(self, shard: Shard, *, honest: bool, worker: str) -> tuple[dict[str, str], dict[str, float]]:
        salt = "" if honest else worker
        if shard.recipe in ("generate", "grpo", "ppo") and shard.phase in ("map", "rollout", "score", "audit"):
            return rows_result(shard, honest=honest, salt=salt)
        if shard.phase == "learn":
            return {"delta": fake_id(shard.id, salt)}, {
                "train_loss": 3.0,
                "loss_first": 3.1,
                "loss_last": 2.9,
                "tokens": 100.0,
                **self.learned.get(shard.round, {}),
            }
        if shard.phase == "map":
            return {"counts": fake_id(shard.id, salt)}, {"words": 10.0, "distinct": 5.0}
        if shard.phase == "evaluate":
            told = self.losses_of.get((shard.stage, shard.round), self.losses.get(shard.round, 3.0 - 0.1 * shard.round))
            loss = told + (0.0 if honest else 0.5)
            metrics = {"before.test_loss": 3.0 - 0.1 * (shard.round - 1)}
            for name in json.loads(shard.order_json)["candidates"]:
                metrics |= {f"{name}.selection_loss": loss, f"{name}.test_loss": loss, f"{name}.test_se": 0.001}
            return {}, metrics
        names = ("checkpoint",) if shard.phase == "init" else ("model", "samples")
        continues = shard.phase == "init" and json.loads(shard.order_json).get("continues")
        metrics = {"continued_moments": 1.0, "continued_step": 10.0} if continues else {}
        if shard.phase == "publish" and json.loads(shard.order_json).get("safety"):
            metrics |= self.published
        return {name: fake_id(shard.id, name, salt) for name in names}, metrics


def _key(round_: Round) -> tuple[str, str, int]:
    return round_.job_id, round_.stage, round_.number


def _reads(stage: StageSpec) -> list[str]:
    return ["base_model", "data", *(f"models.{role}" for role in stage.models)]


def rows_result(shard: Shard, *, honest: bool, salt: str) -> tuple[dict[str, str], dict[str, float]]:
    """Answers, scores, or what an audit of them finds; a liar's numbers are off by 5."""
    order = json.loads(shard.order_json)
    of = order["of"] if shard.phase == "audit" else order
    scored = "of" in of
    drawn = of["of"] if scored else of
    rows = order["rows"] if shard.phase == "audit" else range(drawn["prompts"] * drawn["answers"])
    off = 0.0 if honest else 5.0
    if scored:
        metrics = {f"score.{row}": row / 10 + off for row in rows}
    else:
        metrics = {f"sum.{row}": -10.0 - row - off for row in rows} | {f"peak.{row}": 3.0 for row in rows}
    if scored:
        made = columns_id("scores.safetensors", {"scores": list(metrics.values())})
        return {} if shard.phase == "audit" else {"scores": made}, metrics
    count = drawn["prompts"] * drawn["answers"]
    counts = {"tokens": 8.0 * count, "ended": float(count)}
    if shard.phase == "audit":
        return {}, {**metrics, **counts, **{f"{name}.{row}": 1.0 for name in ("drawn", "told") for row in rows}}
    return {"answers": fake_id(shard.id, salt)}, {**metrics, **counts, "rows": len(rows)}


def _executor_metrics(payload: dict[str, str]) -> dict[str, float]:
    match payload["phase"]:
        case "prepare":
            return {"rows": 450.0, "tokens": 45_000.0, "eval_rows": 50.0}
        case "split" if payload["recipe"] == "generate":
            parts = int(json.loads(payload["order_json"])["parts"])
            return {"parts": float(parts), **{f"prompts.{part}": 40.0 for part in range(parts)}}
        case "grade":
            numbers = json.loads(payload["order_json"])["numbers"]
            told = {f"reward.{number}": 0.1 * int(payload["round"]) for number in numbers}
            return {**told, **{f"rows.{number}": 16.0 for number in numbers}}
        case _:
            return {}


def _executor_outputs(payload: dict[str, str]) -> list[str]:
    match payload["phase"]:
        case "prepare":
            order = json.loads(payload["order_json"])
            return ["train", "eval"] if order["eval_fraction"] else ["train"]
        case "split":
            return [f"part-{index}" for index in range(json.loads(payload["order_json"])["parts"])]
        case "merge":
            names = json.loads(payload["order_json"])["candidates"]
            return [*(f"step-{name}" for name in names), "moments", "outer"]
        case "apply":
            return ["checkpoint"]
        case "grade":
            return [f"scores-{number}" for number in json.loads(payload["order_json"])["numbers"]]
        case "join":
            return ["rows"] if payload["recipe"] == "generate" else ["report"]
        case _:
            return ["report"]


def parse(lease: str) -> LeaseId:
    return LeaseId.parse(lease)
