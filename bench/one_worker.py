# pyright: standard
"""What a whole job costs beside its arithmetic: one worker, one requester, everything real, against a bare loop.

Each turn pre-trains a model of about three million parameters through a coordinator (SQLite, TLS, simulated sats) and a
worker of their own, one shard a round and no held-out rows. Then it takes the same number of steps on the same rows in
plain torch (`overhead.bare_loop`). Turns alternate, so that a busy machine bothers both alike; the figure is the median
of the turns' ratios. Measured: from the start of the first learn round to the end of the last, so fetching, uploading,
merging and applying are in it, and starting processes, preparing data and loading the bare model are not.

    python bench/one_worker.py --turns 3
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "deploy" / "demo")]

import corpus  # noqa: E402
from overhead import bare_loop  # noqa: E402
from processes import Processes, children  # noqa: E402

from shardwork.recipes.orders import LearnOrder  # noqa: E402

RESULT = HERE / "results" / "one_worker.json"
GOAL = 1.05
POLL_S = 0.25
#: a job that takes longer than this is stuck
PATIENCE_S = 1_200
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
JOB = """
name: one-worker
recipe: pretrain
data: data/text.jsonl
params:
  preset: small-3m
  vocab_size: 2048
  max_length: 128
  batch_size: 16
  learning_rate: 0.002
plan: {{rounds: {rounds}, shards_per_round: 1, inner_steps: {steps}}}
trust: {{class: public}}
budget: {{max_sats: 1000}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Milliseconds of one learn round, by where they went."""

    #: from the round's start to the grant of its shard
    grant_ms: int
    #: the child's own time: load, steps, write
    compute_ms: int
    #: the lease's other time: fetch, hash, commit, upload, submit
    handling_ms: int
    #: from the accepted result to the applied round
    merge_ms: int


@dataclass(frozen=True, slots=True)
class Cpu:
    """Processor seconds while it learned."""

    #: of the coordinator, its executor, the agent and the training child
    all_s: float
    #: of the training child alone
    child_s: float

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.all_s - other.all_s, self.child_s - other.child_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """One job's learn rounds, in the coordinator's own times."""

    rounds: list[Round]
    wall_s: float
    cpu: Cpu
    orders: list[LearnOrder] = field(repr=False)


def run_job(folder: Path, rounds: int, steps: int) -> tuple[JobRun, Path, Path]:
    """Runs the job to its end; also the model skeleton and the prepared rows it used, in the worker's cache."""
    corpus.write(folder / "data")
    (folder / "job.yaml").write_text(JOB.format(rounds=rounds, steps=steps), encoding="utf-8")
    processes = Processes(folder)
    try:
        processes.start_coordinator()
        processes.start_worker("worker")
        processes.client("login", processes.join, quiet=True)
        processes.client("wallet", "deposit", "1000", quiet=True)
        processes.client("job", "submit", "job.yaml", "--yes", quiet=True)
        cpu = watch(folder / "coordinator" / "coordinator.db", rounds, children(os.getpid()))
    finally:
        processes.stop()
    return read_run(folder / "coordinator" / "coordinator.db", cpu), *inputs(folder)


def watch(database: Path, rounds: int, pids: Sequence[int]) -> Cpu:
    """Waits for the job's end by looking into the database, which costs its processes nothing."""
    first: Cpu | None = None
    last, ended = Cpu(0.0, 0.0), 0
    started = time.monotonic()
    while time.monotonic() - started < PATIENCE_S:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            states = [row[0] for row in db.execute("SELECT state FROM job")]
            learning = [row[0] for row in db.execute("SELECT state FROM round WHERE kind = 'learn'")]
        now = cpu_of(pids)
        if learning and first is None:
            first = now
        # one look beyond the last round's end, so that its merge is in it
        if ended < rounds:
            last = now
        ended = sum(1 for state in learning if state == "merged")
        if states == ["succeeded"] and first is not None:
            return last - first
        if states and states[0] not in ("draft", "funded", "running", "succeeded"):
            raise SystemExit(f"the job is {states[0]}")
        time.sleep(POLL_S)
    raise SystemExit("the job did not end")


def cpu_of(pids: Sequence[int]) -> Cpu:
    """User and system seconds of these processes and of their live descendants."""
    total = Cpu(0.0, 0.0)
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            is_child = b"shardwork_worker.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        own_s = sum(map(int, fields[11:15])) / TICKS_A_SECOND
        below = cpu_of(children(pid))
        total = Cpu(total.all_s + own_s + below.all_s, total.child_s + below.child_s + (own_s if is_child else 0.0))
    return total


def read_run(database: Path, cpu: Cpu) -> JobRun:
    rounds: list[Round] = []
    orders: list[LearnOrder] = []
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        rows = db.execute(
            "SELECT r.started_ms, r.ended_ms, l.granted_ms, l.ended_ms, l.compute_ms, s.order_json FROM round r"
            " JOIN shard s ON s.job_id = r.job_id AND s.stage = r.stage AND s.round = r.number AND s.phase = 'learn'"
            " JOIN lease l ON l.shard_id = s.id AND l.state = 'accepted' WHERE r.kind = 'learn' ORDER BY r.number"
        ).fetchall()
    for started_ms, ended_ms, granted_ms, handed_in_ms, compute_ms, order in rows:
        orders.append(LearnOrder.model_validate_json(order))
        rounds.append(
            Round(
                grant_ms=granted_ms - started_ms,
                compute_ms=compute_ms,
                handling_ms=handed_in_ms - granted_ms - compute_ms,
                merge_ms=ended_ms - handed_in_ms,
            )
        )
    return JobRun(rounds=rounds, wall_s=(rows[-1][1] - rows[0][0]) / 1000, cpu=cpu, orders=orders)


def inputs(folder: Path) -> tuple[Path, Path]:
    """The skeleton and the rows, found in the worker's cache by what they hold."""
    # a checkpoint holds the tokenizer too, and the model that was published holds weights
    skeletons = [file.parent for file in (folder / "worker").rglob("config.json") if not _has_weights(file.parent)]
    rows = [file.parent for file in (folder / "worker").rglob("rows-00000.safetensors")]
    return skeletons[0], rows[0]


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def one_turn(rounds: int, steps: int) -> dict[str, Any]:
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        run, base, train = run_job(Path(name), rounds, steps)
        order = run.orders[0].model_copy(update={"steps": sum(one.steps for one in run.orders)})
        bare = bare_loop(base, train, order)
    median = {
        key: statistics.median(getattr(one, key) for one in run.rounds)
        for key in ("grant_ms", "compute_ms", "handling_ms", "merge_ms")
    }
    compute_s = sum(one.compute_ms for one in run.rounds) / 1000
    return {
        "wall_ratio": run.wall_s / bare.wall_s,
        # processor time of everything together, to the bare loop's
        "cpu_ratio": run.cpu.all_s / bare.cpu_s,
        # the child's own work to the bare loop's, and everybody's wall time while the child was not at work: together
        # the wall ratio of a machine without other load
        "quiet_ratio": (run.cpu.child_s + run.wall_s - compute_s) / bare.cpu_s,
        "outside_child": (run.wall_s - compute_s) / compute_s,
        "job_wall_s": run.wall_s,
        "job_cpu_s": run.cpu.all_s,
        "child_wall_s": compute_s,
        "child_cpu_s": run.cpu.child_s,
        "bare_wall_s": bare.wall_s,
        "bare_cpu_s": bare.cpu_s,
        "steps": order.steps,
        "median_round": median,
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25, help="inner steps a round")
    parser.add_argument("--json", type=Path, default=RESULT)
    given = parser.parse_args(arguments)
    turns: list[dict[str, Any]] = []
    for number in range(given.turns):
        turns.append(one_turn(given.rounds, given.steps))
        print(f"turn {number + 1}: {json.dumps(turns[-1])}", file=sys.stderr, flush=True)
    medians = {
        key: statistics.median(turn[key] for turn in turns)
        for key in ("wall_ratio", "cpu_ratio", "quiet_ratio", "outside_child")
    }
    figures = {
        **medians,
        "goal": GOAL,
        "cores": os.cpu_count(),
        "note": "wall_ratio compares two times a minute apart and suffers from other load; the CPU ratios suffer less",
        "turns": turns,
    }
    given.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(medians, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
