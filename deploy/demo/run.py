"""The main job, for real: pre-train a small model, LoRA-tune it across three workers, one slowed and one killed.

`make demo` runs it on the embedded defaults (SQLite, a local folder, simulated sats). `--postgres --coordinators 2`
runs it on two coordinators over one PostgreSQL, of which one is killed as well. Everything it claims at the end was
read from the coordinator or from the files; it exits 1 when one claim does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import corpus
import database
from coordinators import DEPUTY, Coordinators
from processes import BIN, Processes

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "demo-out"
LEAST_FALL = 0.20
#: a killed coordinator's workers are with the other by then
MOST_TAKEOVER_S = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the main job on this machine.")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to work in; emptied first")
    parser.add_argument("--no-faults", action="store_true", help="slow nobody and kill nobody")
    parser.add_argument("--postgres", action="store_true", help="keep the rows in a PostgreSQL server of its own")
    parser.add_argument("--coordinators", type=int, choices=(1, 2), default=1, help="2 needs --postgres")
    options = parser.parse_args()
    if options.coordinators > 1 and not options.postgres:
        parser.error("several coordinators share a database server: add --postgres")
    end_at_signals()
    started = time.monotonic()
    shutil.rmtree(options.out, ignore_errors=True)
    corpus.write(options.out / "data")
    for name in ("pretrain.yaml", "tune.yaml"):
        shutil.copy(HERE / name, options.out / name)
    processes = Processes(options.out)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(database.embedded()).url if options.postgres else ""
        stack.callback(processes.stop)
        coordinators = Coordinators(processes, url, count=options.coordinators)
        claims = run(processes, coordinators, faults=not options.no_faults)
    return tell(claims, time.monotonic() - started)


def end_at_signals() -> None:
    """Ctrl-C and a terminating signal end the demo by way of every `finally`, which stops what it started."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _end)


def _end(signal_number: int, _frame: object) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # impatience would leave processes behind
    print("\nStopped: what the demo started is being ended; what it made so far stays.", flush=True)
    sys.exit(128 + signal_number)


def run(processes: Processes, coordinators: Coordinators, *, faults: bool) -> list[tuple[str, bool]]:
    """Both jobs, then what can be claimed of them."""
    several = len(coordinators.names) > 1
    say(f"{'Two coordinators' if several else 'A coordinator'} and three workers start, each a process of its own.")
    coordinators.start_all()
    for number, name in enumerate(("alice", "bob", "carol")):
        processes.start_worker(name, join=coordinators.join_of(number))
    print(f"The public page is at {processes.web}, and the dashboard at {processes.setup}")
    processes.client("login", processes.join)
    processes.client("wallet", "deposit", "2000")

    say("First job: pre-train a small model from nothing.")
    processes.client("job", "plan", "pretrain.yaml")
    first = submit(processes, "pretrain.yaml")
    processes.client("job", "watch", first)
    processes.client("job", "download", first, "out")

    say("Second job: LoRA-tune it on chat rows" + (", while one worker is slow and another dies." if faults else "."))
    processes.client("data", "check", "data/chat.jsonl")
    second = submit(processes, "tune.yaml")
    taken_over: list[tuple[str, bool]] = []
    saboteur = threading.Thread(target=sabotage, args=(processes, coordinators, second, taken_over), daemon=True)
    if faults:
        saboteur.start()
    processes.client("job", "watch", second)
    processes.client("job", "report", second)
    processes.client("job", "download", second, "out")
    processes.client("wallet", "balance")
    claims = claims_of(processes, coordinators, (first, second), faults=faults)
    return [*claims, *(taken_over or [("a coordinator was taken over from", False)] if faults and several else [])]


def submit(processes: Processes, file: str) -> str:
    print(f"\n$ shardwork job submit {file} --yes")
    return str(processes.ask("job", "submit", file, "--yes")["id"])


def sabotage(processes: Processes, coordinators: Coordinators, job: str, taken_over: list[tuple[str, bool]]) -> None:
    """In round 1 bob is slowed to a tenth; in round 2 carol is killed in the middle of a shard, and in round 3, where
    there are two, the coordinator that bob is attached to. What came of that goes into `taken_over`."""
    wait_for_learning(processes, job, number=1)
    print("\n*** bob's GPU is slowed to a tenth of its speed", flush=True)
    with processes.slowed("bob", share=0.1):
        wait_for_backup(processes, job)
    print("\n*** bob's GPU is free again", flush=True)
    wait_for_learning(processes, job, number=2, worker="carol")
    processes.kill("carol")
    print("\n*** carol is killed (kill -9) in the middle of her shard", flush=True)
    if len(coordinators.names) > 1:
        wait_for_learning(processes, job, number=3, worker="bob")
        print("\n*** bob's coordinator is killed (kill -9) while he computes", flush=True)
        workers, seconds = coordinators.take_over_from(DEPUTY)
        text = f"the killed coordinator's workers ({', '.join(workers)}) were with the other after {seconds:.2f} s"
        taken_over.append((text, bool(workers) and seconds < MOST_TAKEOVER_S))


def wait_for_learning(processes: Processes, job: str, *, number: int, worker: str = "") -> None:
    """Until this round's learn phase runs, and, if named, until the worker computes a shard of it."""
    for _ in range(600):
        shown = processes.ask("job", "show", job)
        rounds = shown["stages"][0]["rounds"]
        if any(one["number"] >= number and one["kind"] == "learn" for one in rounds) and (
            not worker or is_computing(processes, worker)
        ):
            return
        if shown["state"] not in ("running", "paused"):
            return
        time.sleep(0.3)


def wait_for_backup(processes: Processes, job: str) -> None:
    """Until a second copy of a slow shard was given out and made."""
    for _ in range(300):
        rows = processes.ask("job", "events", job)["events"]
        copied = {row["subject"] for row in rows if row["kind"] == "shard.backup"}
        if any(row["kind"] == "shard.done" and row["subject"] in copied for row in rows):
            return
        time.sleep(0.3)


def is_computing(processes: Processes, worker: str) -> bool:
    status = subprocess.run(
        [str(BIN / "shardwork-worker"), "status", "--json"],
        env=processes.environment(worker),
        capture_output=True,
        text=True,
        check=False,
    )
    said: dict[str, Any] = json.loads(status.stdout) if status.returncode == 0 else {}
    return "/learn/" in str(said.get("shard") or "") and float(said.get("progress") or 0) > 0.1


def claims_of(
    processes: Processes, coordinators: Coordinators, jobs: tuple[str, str], *, faults: bool
) -> list[tuple[str, bool]]:
    say("What holds")
    claims: list[tuple[str, bool]] = []
    for job, stage in zip(jobs, ("pretrain", "sft"), strict=True):
        report = processes.ask("job", "report", job)
        losses = [one["eval_loss"] for one in report["stages"][0]["rounds"] if one["eval_loss"] is not None]
        fall = 1 - min(losses) / losses[0]
        text = f"{stage}: held-out loss {losses[0]:.3f} -> {min(losses):.3f} ({fall:.0%} lower)"
        claims.append((text, fall >= LEAST_FALL))
        claims += money_claims(report, stage)
    if faults:
        claims += fault_claims(processes, jobs[1])
    books = books_of(processes, coordinators.settings())
    claims.append((f"the books balance over {books['transfers']} transfers", books["balanced"]))
    return [*claims, adapter_claim(processes)]


def books_of(processes: Processes, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The ledger, counted again from its transfers."""
    command = [str(BIN / "shardwork-coordinator"), "ledger", "check", "--json"]
    done = subprocess.run(
        [*command, "--data-dir", str(processes.folder / "coordinator")],
        env={**processes.environment("coordinator-home"), **(settings or {})},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def money_claims(report: dict[str, Any], stage: str) -> list[tuple[str, bool]]:
    payments = [(one["shard"], one["replica"]) for one in report["payments"]]
    paid = sum(one["msat"] for one in report["payments"])
    accepted = sum(worker["accepted"] for worker in report["workers"])
    sums_up = report["budget_msat"] == report["spent_msat"] + report["refunded_msat"] + report["reserved_msat"]
    return [
        (f"{stage}: {accepted} valid results, each paid once ({paid} msat)", len(set(payments)) == accepted),
        (f"{stage}: budget = spent + refunded + reserved", sums_up),
    ]


def fault_claims(processes: Processes, job: str) -> list[tuple[str, bool]]:
    rows = processes.ask("job", "events", job)["events"]
    taken = [row for row in rows if row["kind"] == "shard.expired"]
    redone = {row["subject"] for row in taken}
    done = [row["subject"] for row in rows if row["kind"] == "shard.done" and row["subject"] in redone]
    backups = [row for row in rows if row["kind"] == "shard.backup"]
    return [
        (
            f"the killed worker's shard was redone once ({', '.join(sorted(redone))})",
            len(taken) == 1 and len(done) == 1,
        ),
        (f"backup copies for the slow worker's shards: {len(backups)}", len(backups) >= 1),
    ]


def adapter_claim(processes: Processes) -> tuple[str, bool]:
    """Plain transformers and peft load the adapter and sample from it, in a process that knows nothing of us."""
    done = subprocess.run(
        [sys.executable, str(HERE / "sample.py"), "out/pretrain.model", "out/sft.model"],
        cwd=processes.folder,
        env=processes.environment("sampler"),
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout if done.returncode == 0 else done.stderr[-2000:])
    return "plain transformers + peft load the adapter and sample from it", done.returncode == 0


def say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def tell(claims: list[tuple[str, bool]], seconds: float) -> int:
    for text, holds in claims:
        print(f"{'ok  ' if holds else 'FAIL'} {text}")
    print(f"\n{seconds:.0f} s in all")
    return 0 if all(holds for _, holds in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
