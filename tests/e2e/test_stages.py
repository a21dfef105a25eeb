"""Several stages in one job: one names another's output, one counts beside them; and every JSON answer has its keys.

The key sets are the contract of docs/cli: keys may be added there and here, never renamed.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.docs.shapes import check

from . import models
from .world import World

JOB = """\
name: chain
stages:
  - name: ground
    recipe: pretrain
    data: text.jsonl
    eval_fraction: 0.2
    params: {preset: tiny-1m, vocab_size: 288, max_length: 32, batch_size: 2}
    plan: {rounds: 1, shards_per_round: 2, inner_steps: 2}
  - name: words
    recipe: count
    data: text.jsonl
    plan: {shards_per_round: 2}
  - name: tune
    recipe: sft
    base_model: ground.model
    data: chat.jsonl
    eval_fraction: 0.2
    params: {method: full, chat_template: chatml, max_length: 96, batch_size: 2}
    plan: {rounds: 1, shards_per_round: 2, inner_steps: 2}
trust: {class: public}
budget: {max_sats: 500}
"""
WHY = {"code", "sentence", "evidence", "next_step"}
JOB_KEYS = {
    *("id", "name", "state", "why", "stages", "shards", "outputs", "self_evaluated"),
    *("budget_msat", "reserved_msat", "spent_msat", "refunded_msat", "created_unix_ms", "ended_unix_ms"),
    *("topped_up_msat", "donated_msat", "priority", "deadline_unix_ms"),
}
STAGE = {
    "name",
    "recipe",
    "state",
    "planned_rounds",
    "why",
    "best_round",
    "memorised",
    "safety",
    "alarms",
    "rounds",
} | {
    *("spent_msat", "win_rate", "reward_start", "reward_best"),
}
ROUND = {
    *("number", "kind", "state", "phase", "train_loss", "eval_loss", "outer"),
    *("accepted", "rejected", "seconds", "bytes_up", "bytes_down", "measures", "paid_msat", "fees_msat"),
}
OUTPUT = {"name", "kind", "digest", "bytes", "deleted"}
SHARE = {"id", "name", "shards", "accepted", "rejected", "paid_msat", "donated", "donated_msat"}
REPORT_KEYS = {"iterations", "workers", "payments", "payments_left_out", "fees_msat", "quote", "spent", "samples"}
PAYMENT = {"shard", "replica", "worker", "phase", "msat"}
EVENT = {"sequence", "at_unix_ms", "kind", "subject", "sentence", "evidence"}
PLAN = {
    *("shards", "rounds", "estimate_msat", "compute_msat", "verification_msat", "fees_msat", "reserve_msat"),
    *("estimated_seconds", "detected_format", "rows", "tokens", "warnings", "name", "budget_msat", "available_msat"),
    *("upload_bytes_per_shard", "download_bytes_per_shard", "stages"),
    *("phases", "msat_per_tera_unit", "minimum_shard_msat", "fee_basis_points"),
}


@pytest.fixture(scope="module")
def chain(town: World) -> str:
    """The finished job's id."""
    models.write_text(town.folder / "text.jsonl")
    (town.folder / "chain.yaml").write_text(JOB)
    job = town.submit("chain.yaml")
    report = town.finish(job)
    assert report["state"] == "succeeded", report["why"]
    return job


def test_stages_run_in_one_job_and_feed_each_other(town: World, chain: str) -> None:
    shown = town.ask("job", "show", chain)
    assert [(stage["name"], stage["state"]) for stage in shown["stages"]] == [
        ("ground", "done"),
        ("words", "done"),
        ("tune", "done"),
    ]
    kinds = {output["name"]: output["kind"] for output in shown["outputs"]}
    assert kinds["ground.model"] == kinds["tune.model"] == "model"
    assert "words.report" in kinds
    assert town.run("job", "download", chain, "chained").exit_code == 0
    made = town.folder / "chained"
    ground, tune = (json.loads((made / f"{name}.model" / "config.json").read_text()) for name in ("ground", "tune"))
    assert ground["vocab_size"] == tune["vocab_size"] == 288
    tokenizers = {(made / f"{name}.model" / "tokenizer.json").read_bytes() for name in ("ground", "tune")}
    assert len(tokenizers) == 1, "the second stage speaks the first one's language"


def test_the_counts_are_right(town: World, chain: str) -> None:
    assert town.run("job", "download", chain, "counted", "--output", "words.report").exit_code == 0
    counted = json.loads((town.folder / "counted" / "words.report" / "counts.json").read_text())
    text = (town.folder / "text.jsonl").read_text()
    assert counted["counts"]["longer"] == text.count("longer")
    assert counted["words"] == sum(counted["counts"].values())


def test_each_stage_reports_its_held_out_loss(town: World, chain: str) -> None:
    for stage in town.ask("job", "show", chain)["stages"]:
        losses = [one["eval_loss"] for one in stage["rounds"] if one["kind"] == "learn"]
        assert [loss is not None for loss in losses] == ([] if stage["recipe"] == "count" else [True])


def check_job_keys(shown: dict[str, Any]) -> None:
    assert set(shown["why"]) == WHY
    assert {frozenset(stage) for stage in shown["stages"]} == {frozenset(STAGE)}
    rounds = [one for stage in shown["stages"] for one in stage["rounds"]]
    # tokens are told in reports, of rounds that read any
    assert {frozenset(one) - {"tokens"} for one in rounds} == {frozenset(ROUND)}
    assert {frozenset(output) for output in shown["outputs"]} == {frozenset(OUTPUT)}
    assert shown["shards"] == {"done": sum(shown["shards"].values())}


def test_show_has_its_keys(town: World, chain: str) -> None:
    shown = town.ask("job", "show", chain)
    assert set(shown) == JOB_KEYS
    check_job_keys(shown)


def test_report_has_its_keys_and_adds_up(town: World, chain: str) -> None:
    report = town.ask("job", "report", chain)
    assert set(report) == JOB_KEYS | REPORT_KEYS
    check_job_keys(report)
    assert {frozenset(share) for share in report["workers"]} == {frozenset(SHARE)}
    assert {frozenset(payment) for payment in report["payments"]} == {frozenset(PAYMENT)}
    for share in report["workers"]:
        mine = [payment["msat"] for payment in report["payments"] if payment["worker"] == share["id"]]
        assert (share["accepted"], share["paid_msat"]) == (len(mine), sum(mine))
    assert report["budget_msat"] == report["spent_msat"] + report["refunded_msat"]


def test_events_have_their_keys_and_an_order(town: World, chain: str) -> None:
    answer = town.ask("job", "events", chain)
    assert set(answer) == {"events"}
    assert {frozenset(event) for event in answer["events"]} == {frozenset(EVENT)}
    numbers = [event["sequence"] for event in answer["events"]]
    assert numbers == sorted(set(numbers))
    assert answer["events"][-1]["kind"] == "job.succeeded"


def test_why_and_plan_have_their_keys(town: World, chain: str) -> None:
    why = town.ask("job", "why", chain)
    assert set(why) == WHY | {"id", "state", "reasons"}
    assert (why["id"], why["state"], why["code"]) == (chain, "succeeded", "job.succeeded")
    plan = town.ask("job", "plan", "chain.yaml")
    assert set(plan) == PLAN
    assert set(plan["estimate_msat"]) == set(plan["estimated_seconds"]) == {"low", "high"}


def test_watch_with_json_ends_with_the_job(town: World, chain: str) -> None:
    said = town.run("job", "watch", chain, "--json")
    assert said.exit_code == 0
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert {frozenset(line) for line in lines[:-1]} == {frozenset(EVENT)}
    assert lines[-1]["kind"] == "job.final"
    assert set(lines[-1]["job"]) == JOB_KEYS


def test_the_report_says_what_each_model_learned_by_heart(town: World, chain: str) -> None:
    stages = {stage["name"]: stage["memorised"] for stage in town.ask("job", "report", chain)["stages"]}
    assert stages["words"] is None
    found = stages["ground"]
    sides, numbers = ("train", "held_out"), ("rows", "reproduced", "longest_run", "mean_run")
    assert set(found) == {f"{side}.{number}" for side in sides for number in numbers}
    for side in sides:
        assert found[f"{side}.rows"] > 0
        # after four steps nothing is known by heart
        assert found[f"{side}.reproduced"] == 0 <= found[f"{side}.mean_run"] <= found[f"{side}.longest_run"] < 8
    page = " ".join(town.run("job", "report", chain).stdout.split())
    assert f"ground knows by heart: 0 of {found['train.rows']:.0f} training rows" in page


def test_every_output_is_of_its_published_shape(town: World, chain: str) -> None:
    for words in ("job show", "job report", "job why", "job events"):
        check(f"shardwork {words}", town.run(*words.split(), chain, "--json").stdout)
    for words in ("job list", "wallet balance", "wallet history", "artifact list", "api-key list", "config show"):
        check(f"shardwork {words}", town.run(*words.split(), "--json").stdout)
    made = check("shardwork api-key create", town.run("api-key", "create", "--json").stdout)
    check("shardwork api-key revoke", town.run("api-key", "revoke", made["id"], "--json").stdout)
    check("shardwork job download", town.run("job", "download", chain, "shaped", "--json").stdout)
    for line in town.run("job", "logs", chain, "--json").stdout.splitlines():
        check("shardwork job logs", line)
    for word in ("status", "why", "doctor", "earnings"):
        check(f"shardwork-worker {word}", town.command_worker("alice", word, "--json").stdout)
    assert check("shardwork-coordinator ledger check", json.dumps(town.books()))["balanced"]
