"""A job of alignment as its page may find it: a loop of two times, answers, preferences and a report to read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from shardwork.feedback.blending import Blend
from shardwork.feedback.consensus import Rule
from shardwork.feedback.pooling import Item, pooled
from shardwork.feedback.report import Costs, judged, report
from shardwork.feedback.votes import Order, Origin, Vote, Winner
from shardwork.jobs.spec import BudgetSection, JobSpec, RepeatSection, StageSpec, TrustSection
from shardwork.why import Why
from shardwork_coordinator.artifacts import ArtifactStore
from shardwork_coordinator.records import Job, JobState, Round, RoundState, Stage, StageState
from shardwork_coordinator.store.base import Transaction

from .scene import Scene

HOSTILE = "<script>alert('answer')</script><img src=x onerror=alert(2)>"
ROWS = 45


def answers(version: str) -> list[dict[str, Any]]:
    return [
        {
            "prompt_id": f"p{number}",
            "prompt": f"Say something about {number}." if number else HOSTILE,
            "answers": [
                {
                    "model": version,
                    "text": f"{version} says {number} " + (HOSTILE if number == 0 else "and leaves it at that."),
                    "ended": True,
                    "tokens": 7,
                }
            ],
        }
        for number in range(ROWS)
    ]


PREFERENCES = [
    {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"question {number}"}],
        "chosen": [{"role": "assistant", "content": "the better one"}],
        "rejected": [{"role": "assistant", "content": "the worse one"}],
        "prompt_id": f"p{number}",
        "confidence": 0.75,
        "votes": 4,
    }
    for number in range(3)
]


def voted() -> list[Vote]:
    """40 pairs of a tuned model and a base called something nasty: two people judge each, a judge both orders of it;
    people differ at every tenth, the judge from them at every fifth, and it flips at every eighth."""

    def vote(number: int, winner: str, who: str, order: Order = Order.AB, **more: Any) -> Vote:
        named: dict[str, Any] = {"prompt_id": f"p{number}", "item": str(number), "model_a": "tuned", "model_b": HOSTILE}
        return Vote(**named, winner=Winner(winner), annotator=who, order=order, **more)

    found: list[Vote] = []
    for number in range(40):
        better = "a" if number % 3 else "b"
        other = "b" if better == "a" else "a"
        found += [
            vote(number, better, "anna", ms=2_000, source=Origin.PEOPLE),
            vote(number, other if number % 10 == 9 else better, "bert", ms=4_000, source=Origin.PEOPLE),
        ]
        told = other if number % 5 == 4 else better
        for order in Order:
            flipped = number % 8 == 7 and order is Order.BA
            winner = ("b" if told == "a" else "a") if flipped else told
            found.append(vote(number, winner, "judge", order, ms=50, source=Origin.JUDGE, confidence=0.8))
    return found


def reported() -> dict[str, Any]:
    """As a stage of consensus writes it."""
    items = {
        str(number): Item(f"p{number}", f"What is {number}?", ("a longer answer", "short")) for number in range(40)
    }
    found = judged(pooled([(voted(), items)]), Rule.DAWID_SKENE, Blend(people=1.0, judge=0.5))
    return report(found, Costs(people_msat=400_000, judge_msat=40_000, people_ms=600_000, judge_ms=60_000))


ALARM = Why(
    code="alarm.reward_hacking",
    sentence="The reward of stage policy-1 rose, and its answers lose against those from before it.",
    evidence={"win_rate": "38.0% (30.0% to 46.0%) against start"},
    next_step="Read answers of both.",
)
#: of the policy: what it learned, what votes said of it, and what it and its base refused
NUMBERS = {
    "reward_start": 0.25,
    "best_reward": 0.625,
    "win_rate": 0.38,
    "win_rate_low": 0.3,
    "win_rate_high": 0.46,
    "safety.harmful.asked": 7,
    "safety.harmful.refused_before": 6,
    "safety.harmful.refused_after": 5,
    "safety.harmless.asked": 6,
    "safety.harmless.refused_before": 0,
    "safety.harmless.refused_after": 1,
    "safety.plain.asked": 3,
    "safety.plain.refused_before": 0,
    "safety.plain.refused_after": 0,
}
SKIPPED = Why(code="stage.gate_shut", sentence="Stage answers-2 was skipped: the reward of policy-1 rose too little.")


async def aligned(scene: Scene, folder: Path, *, odd: str = "") -> tuple[str, ArtifactStore]:
    """The job's id, and the bytes of what it made. `odd`: the file of one more output, odd.rows."""
    contents = ArtifactStore.open(folder / "artifacts")

    def stored(name: str, file: str, text: str) -> str:
        (folder / name).mkdir()
        (folder / name / file).write_text(text, encoding="utf-8")
        return contents.put_folder(folder / name).id

    def lines(rows: list[dict[str, Any]]) -> str:
        return "".join(json.dumps(row) + "\n" for row in rows)

    made = {
        "answers-1.rows": stored("a1", "rows.jsonl", lines(answers("first"))),
        "after.rows": stored("a2", "rows.jsonl", lines(answers("second")[::-1])),
        "votes-1.rows": stored("v1", "preferences.jsonl", "no JSON\n" + lines(PREFERENCES)),
        "votes-1.report": stored("r1", "report.json", json.dumps(reported())),
    }
    if odd:
        made["odd.rows"] = stored("odd", "rows.jsonl", odd)
    job_id = await scene.job("aligned", JobState.RUNNING)
    await scene.put(lambda tx: _fill(tx, job_id, made))
    return job_id, contents


def _fill(tx: Transaction, job_id: str, made: dict[str, str]) -> None:
    loop = ("answers", "votes", "policy")
    recipes = {"answers": "generate", "votes": "consensus", "policy": "grpo", "after": "generate", "odd": "generate"}
    names = [*(f"{name}-{number}" for number in (1, 2) for name in loop), "after", "odd"]
    spec = JobSpec(
        name="aligned",
        stages=[StageSpec(name=name, recipe=recipes[name.rpartition("-")[0] or name]) for name in names],
        repeat=RepeatSection(stages=list(loop), times=2),
        trust=TrustSection(data_class="public"),
        budget=BudgetSection(max_sats=1000),
    )
    job = tx.get(Job, job_id)
    assert job is not None
    tx.put(replace(job, spec_json=spec.canonical_json()))
    for position, stage in enumerate(spec.stages, 1):
        skipped = stage.name.endswith("-2")
        outputs = {
            name: {"artifact_id": one, "kind": "rows"}
            for name, one in made.items()
            if name.startswith(f"{stage.name}.")
        }
        is_policy = stage.name == "policy-1"
        tx.put(
            Stage(
                job_id=job_id,
                name=stage.name,
                position=position,
                recipe=stage.recipe,
                state=StageState.SKIPPED if skipped else StageState.DONE,
                planned_rounds=1,
                spec_json=stage.model_dump_json(),
                numbers_json=json.dumps(NUMBERS if is_policy else {}),
                outputs_json=json.dumps(outputs),
                alarms_json=f"[{ALARM.to_json()}]" if is_policy else "[]",
                why_json=SKIPPED.to_json() if skipped else "",
            )
        )
        if is_policy:
            tx.put(
                Round(
                    job_id=job_id,
                    stage=stage.name,
                    number=1,
                    kind="learn",
                    state=RoundState.MERGED,
                    phase="apply",
                    started_ms=job.created_ms,
                    ended_ms=job.created_ms + 1_000,
                    paid_msat=40_000,
                    fees_msat=1_000,
                    measures_json=json.dumps({"reward": 0.625, "kl": 0.031, "length": 12.5}),
                )
            )
