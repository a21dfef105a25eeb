"""Alignment, for real: a small model learns from people's feedback by PPO, twice over, and people judge the result.

`make demo-rlhf` runs it on the embedded defaults: a coordinator, three workers, and simulated annotators who answer
over the coordinator's real web API, one of whom reads nothing. Everything it claims at the end was read from the
coordinator or from the files; it exits 1 when one claim does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import annotators
import manners
from processes import Processes
from run import books_of, end_at_signals, money_claims, say, submit, tell

from shardwork.feedback.ratings import win_rate
from shardwork.feedback.votes import read

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "demo-rlhf-out"
PEOPLE = 5
#: of the last model against the first, by people
LEAST_WIN_RATE = 0.6


def main() -> int:
    parser = argparse.ArgumentParser(description="Align a small model on this machine.")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to work in; emptied first")
    options = parser.parse_args()
    end_at_signals()
    started = time.monotonic()
    shutil.rmtree(options.out, ignore_errors=True)
    manners.write(options.out / "data")
    for name in ("first.yaml", "rlhf.yaml"):
        shutil.copy(HERE / name, options.out / name)
    processes = Processes(options.out)
    with contextlib.ExitStack() as stack:
        stack.callback(processes.stop)
        claims = run(processes)
    return tell(claims, time.monotonic() - started)


def run(processes: Processes) -> list[tuple[str, bool]]:
    say("A coordinator and three workers start, each a process of its own.")
    processes.start_coordinator()
    for name in ("alice", "bob", "carol"):
        processes.start_worker(name)
    print(f"People answer at {processes.web}/people, and the dashboard is at {processes.setup}")
    processes.client("login", processes.join)
    processes.client("wallet", "deposit", "8000")

    say("First job: a small model from nothing, more often rude than kind.")
    first = submit(processes, "first.yaml")
    processes.client("job", "watch", first)
    processes.client("job", "download", first, "first")

    say("Second job: people's feedback makes it kinder, and people say whether it did.")
    over = threading.Event()
    people = [
        annotators.Annotator(processes.web, f"person {number}", annotators.kind, over) for number in range(PEOPLE)
    ]
    bot = annotators.Annotator(processes.web, "always left", annotators.left, over)
    threads = [threading.Thread(target=one.run, daemon=True) for one in (*people, bot)]
    for thread in threads:
        thread.start()
    second = submit(processes, "rlhf.yaml")
    processes.client("job", "watch", second)
    over.set()
    for thread in threads:
        thread.join(30)
    processes.client("job", "report", second)
    processes.client("job", "download", second, "aligned")
    processes.client("feedback", "ratings", "aligned/verdict.votes")
    return claims_of(processes, second, people, bot)


def claims_of(
    processes: Processes, job: str, people: list[annotators.Annotator], bot: annotators.Annotator
) -> list[tuple[str, bool]]:
    say("What holds")
    report = processes.ask("job", "report", job)
    claims = [reward_claim(stage) for stage in report["stages"] if stage["recipe"] == "ppo" and stage["rounds"]]
    claims.append(manners_claim(processes.folder / "aligned"))
    claims.append(rating_claim(processes.folder / "aligned"))
    claims += people_claims(people, bot)
    claims += money_claims(report, "aligned")
    books = books_of(processes)
    claims.append((f"the books balance over {books['transfers']} transfers", books["balanced"]))
    return claims


def reward_claim(stage: dict[str, Any]) -> tuple[str, bool]:
    rewards = [one["measures"]["reward"] for one in stage["rounds"] if "reward" in one["measures"]]
    told = f"{stage['name']}: reward on held-out prompts {rewards[0]:+.3f} -> {max(rewards):+.3f}"
    return told, max(rewards) >= rewards[0]


def manners_claim(folder: Path) -> tuple[str, bool]:
    """What the answers themselves show, of the first model and of the last."""
    found: dict[str, list[float]] = {"first": [], "last": []}
    for line in _rows(folder, "last.rows"):
        for answer in line["answers"]:
            found[answer["model"]].append(manners.liking(answer["text"]))
    first, last = (sum(found[name]) / len(found[name]) for name in ("first", "last"))
    return f"kindness of the answers {first:+.2f} -> {last:+.2f} (of -4 to 2)", last > first


def rating_claim(folder: Path) -> tuple[str, bool]:
    """What people said when they were shown an answer of each."""
    path = folder / "verdict.votes" / "votes.jsonl"
    with path.open(encoding="utf-8") as lines:
        won = win_rate(list(read(lines, path.name)), "last", "first").rate
    told = f"people prefer the last model to the first in {won.value:.0%} ({won.low:.0%} to {won.high:.0%})"
    return told, won.value >= LEAST_WIN_RATE and won.low > 0.5


def people_claims(people: list[annotators.Annotator], bot: annotators.Annotator) -> list[tuple[str, bool]]:
    paid = sum(one.me.get("paid_msat", 0) for one in people)
    held = sum(one.me.get("held_msat", 0) for one in people)
    votes, unearned = sum(one.votes for one in people), bot.me.get("paid_msat", 0)
    return [
        (f"{len(people)} people were paid {paid // 1000} sats for {votes} judgements, none is held", paid > 0 == held),
        (f"who always presses left was paid {unearned} msat after {bot.votes} votes", not unearned),
    ]


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / name / "rows.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
