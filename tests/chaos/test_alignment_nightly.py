"""Alignment under fire: whoever is killed in whichever phase, a job's bytes and accounts are those of a quiet day.

A small job that answers, judges, learns a reward model and improves a policy by it. Workers are struck while they hold
a shard, never in the hope that they do: the child stands still before its worker is killed.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import pytest

from shardwork.errors import Unreachable

from ..e2e import fixed_job, models
from ..e2e.world import CALM, WORKERS, World
from .aims import ON_THE_WAY, both
from .failing_coordinator import FailingCoordinator

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

JOB = """\
name: align
stages:
  - name: answer
    recipe: generate
    base_model: models/policy
    data: prompts.jsonl
    params: {answers: 2, max_new_tokens: 8, max_length: 48}
    plan: {shards_per_round: 2}
  - name: judge
    recipe: judge
    base_model: models/judge
    data: answer.rows
    params: {max_length: 640, length_controlled: false, batch_size: 4}
    plan: {shards_per_round: 2}
  - name: score
    recipe: reward
    base_model: models/policy
    data: judge.rows
    params: {method: full, batch_size: 2, max_length: 64}
    plan: {rounds: 1, shards_per_round: 1, inner_steps: 2}
  - name: improve
    recipe: grpo
    base_model: models/policy
    models: {reward: score.model}
    data: prompts.jsonl
    params: {method: full, max_length: 48, max_new_tokens: 8, answers: 2, prompts_per_shard: 4, batch_size: 4}
    plan: {rounds: 2, shards_per_round: 2, inner_steps: 2}
trust: {class: public}
budget: {max_sats: 500}
"""
#: (stage, phase) in the order in which they come
STRUCK = (
    ("answer", "map"),
    ("answer", "audit"),
    ("judge", "map"),
    ("judge", "audit"),
    ("score", "learn"),
    ("improve", "rollout"),
    ("improve", "audit"),
    ("improve", "score"),
    ("improve", "learn"),
    ("improve", "publish"),
)
HELD = """
select lease.id, lease.worker_id from lease join shard on shard.id = lease.shard_id
where shard.job_id = ? and shard.stage = ? and shard.phase = ? and lease.state = 'leased'
"""
PATIENCE_S = 400.0
#: a broken stream costs a worker its lease at once; slowness, which would use up attempts, doesn't
BRISK = {**CALM, "SHARDWORK_LEASE_TTL_S": "60", "SHARDWORK_RECONNECT_GRACE_S": "0.5"}
#: a worker that stands still is missed soon
STRICT = {**CALM, "SHARDWORK_LEASE_TTL_S": "4"}


def write(world: World) -> None:
    models.write_gpt2(world.folder / "models" / "policy", positions=640)
    models.write_gpt2(world.folder / "models" / "judge", seed=9, positions=640, spread=0.5)
    models.write_prompts(world.folder / "prompts.jsonl")
    (world.folder / "same.yaml").write_text(JOB)


def outcome(world: World, job: str) -> dict[str, str]:
    """What each stage made, by the digest of its bytes; what was drawn, scored and learned, round by round."""
    found = {
        f"{stage}/{number}/{name}": value
        for stage, number, results in world.rows("select stage, number, results_json from round where job_id = ?", job)
        for name, value in json.loads(results).items()
        if name != "samples"
    }
    for stage, artifacts in world.rows("select name, artifacts_json from stage where job_id = ?", job):
        found |= {f"{stage}/{name}": value for name, value in json.loads(artifacts).items() if name != "report"}
    return found


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world where nobody is killed."""
    world = World(tmp_path_factory.mktemp("calm"), CALM, patience_s=PATIENCE_S)
    try:
        world.start(*WORKERS, sats=1_000)
        write(world)
        yield world
    finally:
        world.stop()


@pytest.fixture(scope="module")
def quiet_day(calm: World) -> dict[str, str]:
    job = fixed_job.submit(calm)
    calm.finish(job)
    fixed_job.check_accounts(calm, job)
    return outcome(calm, job)


@contextlib.contextmanager
def opened(calm: World, folder: Path, settings: Mapping[str, str], *workers: str) -> Generator[World]:
    """Another world with the coordinator's key of the calm one, so that the same job makes the same bytes."""
    world = World(folder, settings, patience_s=PATIENCE_S)
    fixed_job.lend_key(calm, world)
    try:
        world.start(*workers, sats=1_000)
        write(world)
        yield world
    finally:
        world.stop()


def ends_as_on(quiet_day: dict[str, str], world: World, job: str) -> None:
    world.finish(job)
    fixed_job.check_accounts(world, job)
    assert outcome(world, job) == quiet_day


def test_a_worker_killed_in_every_phase_changes_no_byte(calm: World, quiet_day: dict[str, str], tmp_path: Path) -> None:
    with opened(calm, tmp_path / "struck", BRISK, *WORKERS) as world:
        names = {str(world.worker(name)["worker_id"]): name for name in WORKERS}
        job = fixed_job.submit(world)
        for stage, phase in STRUCK:
            while not strike(world, job, stage, phase, names):
                pass
        ends_as_on(quiet_day, world, job)


def strike(world: World, job: str, stage: str, phase: str, names: dict[str, str]) -> bool:
    """Kills a worker in the middle of a shard of this phase; False where its result was faster."""
    lease, name = caught(world, job, stage, phase, names)
    world.processes.kill(name)
    world.processes.start_worker(name)
    world.until(lambda: state_of(world, lease) != "leased", f"the lease of {name} to end")
    return state_of(world, lease) == "expired"


def caught(world: World, job: str, stage: str, phase: str, names: dict[str, str]) -> tuple[str, str]:
    """(lease, worker) of one that holds a shard of this phase, whose child stands still."""
    found: list[tuple[str, str]] = []

    def look() -> bool:
        for lease, worker in world.rows(HELD, job, stage, phase):
            world.signal_children(names[worker], signal.SIGSTOP)
            found.append((lease, names[worker]))
            return True
        return False

    world.until(look, f"a worker with a {phase} shard of {stage}")
    return found[0]


def state_of(world: World, lease: str) -> str:
    return str(world.rows("select state from lease where id = ?", lease)[0][0])


def test_a_coordinator_killed_at_every_failpoint_of_an_alignment_changes_no_byte(
    calm: World, quiet_day: dict[str, str], tmp_path: Path
) -> None:
    failpoints = both(ON_THE_WAY)
    coordinator = FailingCoordinator(tmp_path / "failing", ["none:before", *failpoints], settings=CALM)
    world = World(coordinator.processes.folder, patience_s=PATIENCE_S)
    world.processes = coordinator.processes
    fixed_job.lend_key(calm, world)
    try:
        coordinator.start()
        for name in WORKERS:
            world.processes.start_worker(name)
        assert coordinator.persist("login", world.processes.join).returncode == 0
        assert coordinator.persist("wallet", "deposit", "1000").returncode == 0
        write(world)
        coordinator.skip()
        job = submitted(world)
        world.until(lambda: world.job_state(job) in ("succeeded", "failed", "paused"), "the job to end")
        assert coordinator.killed_at == failpoints
        assert coordinator.faults == []
        fixed_job.check_accounts(world, job)
        assert outcome(world, job) == quiet_day
    finally:
        coordinator.stop()


def test_a_worker_that_wakes_with_an_old_policys_answers_is_not_heard(
    calm: World, quiet_day: dict[str, str], tmp_path: Path
) -> None:
    """Its lease ran out while it stood still; the round was learned without it, and the next one names another
    checkpoint: what it hands in then is neither paid nor learned from."""
    with opened(calm, tmp_path / "asleep", STRICT, *WORKERS) as world:
        names = {str(world.worker(name)["worker_id"]): name for name in WORKERS}
        job = fixed_job.submit(world)
        lease, sleeper = caught(world, job, "improve", "rollout", names)
        world.signal_worker(sleeper, signal.SIGSTOP)
        world.until(lambda: state_of(world, lease) == "expired", "the lease of who sleeps to end")
        # somebody else must check what is left of the round
        world.processes.start_worker("carol")
        second = "select 1 from round where job_id = ? and stage = 'improve' and number = 2"
        world.until(lambda: bool(world.rows(second, job)), "the round to be learned without them")
        world.signal_worker(sleeper, signal.SIGCONT)
        world.thaw_child(sleeper)
        world.finish(job)
        fixed_job.check_accounts(world, job)
        assert state_of(world, lease) == "expired"
        assert outcome(world, job) == quiet_day


def test_an_auditor_that_never_answers_costs_nobody_a_result(
    calm: World, quiet_day: dict[str, str], tmp_path: Path
) -> None:
    with opened(calm, tmp_path / "mute", STRICT, *WORKERS, "carol") as world:
        names = {str(world.worker(name)["worker_id"]): name for name in (*WORKERS, "carol")}
        job = fixed_job.submit(world)
        lease, mute = caught(world, job, "answer", "audit", names)
        world.signal_worker(mute, signal.SIGSTOP)
        world.finish(job)
        world.signal_worker(mute, signal.SIGCONT)
        assert state_of(world, lease) == "expired"
        refused = "select shard_id from lease where job_id = ? and state = 'rejected'"
        assert world.rows(refused, job) == []
        fixed_job.check_accounts(world, job)
        assert outcome(world, job) == quiet_day


def test_with_one_worker_a_job_says_that_nobody_can_check_and_a_second_one_does(
    calm: World, quiet_day: dict[str, str], tmp_path: Path
) -> None:
    with opened(calm, tmp_path / "lonely", CALM, "alice") as world:
        job = fixed_job.submit(world)
        world.until(
            lambda: world.ask("job", "why", job)["code"] == "job.waits_for_audit", "the job to say what it lacks"
        )
        why = world.ask("job", "why", job)
        assert why["evidence"]["phase"] == "map"
        assert "self-evaluated" in why["next_step"]
        assert world.ask("job", "show", job)["spent_msat"] == 0
        world.processes.start_worker("bob")
        ends_as_on(quiet_day, world, job)


def submitted(world: World) -> str:
    """Submits until an answer comes, as a person would who sees that the coordinator is away."""
    found: list[str] = []

    def answered() -> bool:
        with contextlib.suppress(Unreachable):
            found.append(fixed_job.submit(world))
        return bool(found)

    world.until(answered, "the coordinator to take the job")
    return found[0]
