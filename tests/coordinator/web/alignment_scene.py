"""A job of alignment as its page may find it: a loop of two times, answers, preferences and a report to read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

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


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "of": 40.0}


REPORT: dict[str, Any] = {
    "sides": [
        {"name": name, "pairs": 40, "cost_msat": msat, "ms": 90_000, "quality": share(quality)}
        for name, msat, quality in (("people", 400_000, 0.84), ("judge", 40_000, 0.71), ("blend", 440_000, 0.88))
    ],
    "agreement": {"judge_with_people": share(0.7), "people_alpha": {"value": 0.74}, "flips": share(0.12)},
    "ratings": [
        {"model": "tuned", "elo": 1043.0, "low": 1010.0, "high": 1076.0, "votes": 60},
        {"model": HOSTILE, "elo": 957.0, "low": 924.0, "high": 990.0, "votes": 60},
    ],
    "win_rates": [{"model": "tuned", "against": "base", "rate": 0.62, "low": 0.54, "high": 0.7}],
}
SKIPPED = Why(code="stage.gate_shut", sentence="Stage answers-2 was skipped: the reward of policy-1 rose too little.")


async def aligned(scene: Scene, folder: Path) -> tuple[str, ArtifactStore]:
    """The job's id, and the bytes of what it made."""
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
        "votes-1.report": stored("r1", "report.json", json.dumps(REPORT)),
    }
    job_id = await scene.job("aligned", JobState.RUNNING)
    await scene.put(lambda tx: _fill(tx, job_id, made))
    return job_id, contents


def _fill(tx: Transaction, job_id: str, made: dict[str, str]) -> None:
    loop = ("answers", "votes", "policy")
    recipes = {"answers": "generate", "votes": "consensus", "policy": "grpo", "after": "generate"}
    names = [*(f"{name}-{number}" for number in (1, 2) for name in loop), "after"]
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
                numbers_json=json.dumps({"reward_start": 0.25, "best_reward": 0.625} if is_policy else {}),
                outputs_json=json.dumps(outputs),
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
