"""Ratings, reports and exchange: of files, of folders, and of what a job made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shardwork.artifact import describe_folder
from shardwork.v1 import jobs_pb2
from tests.docs.shapes import check

from .conftest import Run, error_of, json_of
from .fake_coordinator import Fake
from .sample_jobs import JOB_ID, succeeded_job


def vote(number: int, winner: str, who: str = "ann", **more: Any) -> dict[str, Any]:
    named = {"prompt_id": f"p{number}", "item": number, "model_a": "new", "model_b": "old", "order": "ab"}
    return {**named, "winner": winner, "annotator": who, "ms": 3000, "job": "j", "source": "people", **more}


def folder_of(place: Path, votes: list[dict[str, Any]], *, with_items: bool = True) -> Path:
    place.mkdir(parents=True)
    (place / "votes.jsonl").write_text("".join(json.dumps(one) + "\n" for one in votes))
    answers = [{"model": "new", "text": "longer answer"}, {"model": "old", "text": "short"}]
    items = {one["item"]: {"prompt_id": one["prompt_id"], "prompt": f"{one['item']}?"} for one in votes}
    rows = [{"item": name, **item, "answers": answers} for name, item in items.items()]
    if with_items:
        (place / "items.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return place


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    people = [vote(number, "b" if number == 9 else "a", who) for number in range(10) for who in ("ann", "bob")]
    judge = {"source": "judge", "annotator": "judge", "ms": 0, "confidence": 0.8}
    return folder_of(
        tmp_path / "votes",
        people + [vote(number, "a", order=order) | judge for number in range(20) for order in ("ab", "ba")],
    )


def test_ratings_say_who_is_stronger_and_how_sure(run: Run, votes: Path) -> None:
    for place in (votes, votes / "votes.jsonl"):
        said = run("feedback", "ratings", place, "--json")
        told = check("shardwork feedback ratings", said.stdout)
        assert [one["model"] for one in told["ratings"]] == ["new", "old"]
        # three annotators say little about all others, however much they agree
        assert all(one["low"] < one["elo"] < one["high"] and one["votes"] == 60 for one in told["ratings"])
        (rate,) = told["win_rates"]
        assert (rate["model"], rate["wins"], rate["losses"]) == ("new", 58, 2) and rate["low"] > 0.5
    page = run("feedback", "ratings", votes).stdout
    assert "new" in page and "97%" in page


def test_a_report_compares_people_judge_and_blend(run: Run, votes: Path) -> None:
    told = check("shardwork feedback report", run("feedback", "report", votes, "--json").stdout)
    assert told["agreement"]["judge_with_people"]["value"] == pytest.approx(0.9)
    assert told["agreement"]["people_alpha"]["value"] == 1.0 and told["agreement"]["flips"]["value"] == 0.0
    assert [(one["name"], one["pairs"]) for one in told["sides"]] == [("people", 10), ("judge", 20), ("blend", 20)]
    assert told["costs"] is None and all(one["cost_msat"] is None for one in told["sides"])  # no file says what it cost
    assert told["bias"]["people"]["longer"]["value"] == pytest.approx(0.9)
    assert {one["annotator"] for one in told["annotators"]} == {"ann", "bob", "judge"}
    page = run("feedback", "report", votes).stdout
    assert "alpha 1.00" in page and "blend" in page and "90%" in page


def test_votes_without_what_they_are_about_are_rated_and_reported_all_the_same(run: Run, tmp_path: Path) -> None:
    bare = folder_of(tmp_path / "bare", [vote(number, "a") for number in range(4)], with_items=False)
    assert json_of(run("feedback", "ratings", bare, "--json"))["votes"] == 4
    told = check("shardwork feedback report", run("feedback", "report", bare, "--json").stdout)
    assert (told["unknown"], told["sides"]) == (4, [])
    refused = run("feedback", "export", bare, tmp_path / "x", "--to", "argilla", "--json")
    assert refused.exit_code == 3 and error_of(refused)["code"] == "feedback.no_texts"
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("program", ["argilla", "label-studio"])
def test_votes_survive_the_way_to_another_program_and_back(program: str, run: Run, votes: Path, tmp_path: Path) -> None:
    file, back = tmp_path / "out.json", tmp_path / "back"
    made = check("shardwork feedback export", run("feedback", "export", votes, file, "--to", program, "--json").stdout)
    assert (made["rows"], made["votes"], made["preferences"]) == (20, 40, 20)
    again = run("feedback", "import", file, back, "--from", program, "--json")
    told = check("shardwork feedback import", again.stdout)
    assert (told["rows"], told["votes"]) == (20, 40)
    before, after = (json_of(run("feedback", "ratings", place, "--json")) for place in (votes, back))
    assert [one["model"] for one in after["ratings"]] == [one["model"] for one in before["ratings"]]
    counts = [(one["wins"], one["losses"]) for one in after["win_rates"]]
    assert counts == [(38, 2)]  # the judge's two orders are one vote elsewhere


def test_preferences_follow_rule_weights_and_conflict(run: Run, votes: Path, tmp_path: Path) -> None:
    def exported(name: str, *more: object) -> dict[str, str]:
        done = run("feedback", "export", votes, tmp_path / name, "--to", "preferences", *more)
        assert done.exit_code == 0, done.stderr
        rows = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        return {row["prompt"]: row["chosen"] for row in rows}

    assert exported("1")["9?"] == "short" and len(exported("2", "--conflict", "drop")) == 19
    assert exported("3", "--judge", 9, "--conflict", "weighted", "--rule", "majority")["9?"] == "longer answer"
    assert len(exported("4", "--judge", 0)) == 10
    wrong = run("feedback", "export", votes, tmp_path / "5", "--to", "preferences", "--people", 0, "--json")
    assert wrong.exit_code == 3 and error_of(wrong)["code"] == "blend.people_without_weight"


def test_no_file_is_written_over_and_no_program_guessed(run: Run, votes: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("mine")
    done = run("feedback", "export", votes, kept, "--to", "argilla", "--json")
    assert done.exit_code == 1 and error_of(done)["code"] == "feedback.exists" and kept.read_text() == "mine"
    odd = run("feedback", "export", votes, tmp_path / "x", "--to", "excel", "--json")
    assert odd.exit_code == 2 and "label-studio" in error_of(odd)["next_step"]
    missing = run("feedback", "report", tmp_path / "nothing", "--json")
    assert missing.exit_code == 4 and error_of(missing)["code"] == "feedback.no_votes"


def test_a_broken_row_is_named_with_its_line(run: Run, votes: Path) -> None:
    with (votes / "votes.jsonl").open("a") as sink:
        sink.write(json.dumps(vote(1, "c")) + "\n")
    done = run("feedback", "ratings", votes, "--json")
    evidence = error_of(done)["evidence"]
    assert done.exit_code == 3 and (evidence["line"], evidence["key"]) == ("61", "winner")


def test_a_jobs_votes_are_fetched_by_its_id(fake: Fake, logged_in: Run, votes: Path, tmp_path: Path) -> None:
    manifest = describe_folder(votes)
    data = b"".join((votes / entry.path).read_bytes() for entry in manifest.files)
    artifact = fake.store_artifact(manifest, data)
    job = succeeded_job()
    for stage, recipe in (("feedback", "people"), ("agreed", "consensus")):
        job.stages.add(name=stage, recipe=recipe, state="done")
        job.outputs.add(name=f"{stage}.votes", kind="votes", artifact_id=artifact, bytes=len(data))
    fake.jobs[JOB_ID] = job
    for name, count in ((JOB_ID, 60), (f"{JOB_ID}.feedback", 60), (f"{JOB_ID}.agreed", 60)):
        assert json_of(logged_in("feedback", "ratings", name, "--json"))["votes"] == count
    # what stages paid for them; one of consensus asked nobody, and its report knows
    job.stages[-2].spent_msat = 70_000
    job.stages[-2].rounds.add(number=1, kind="map", state="merged", seconds=90.5)
    written = tmp_path / "report"
    written.mkdir()
    (written / "report.json").write_text(
        json.dumps({"costs": {"people_msat": 50_000, "judge_msat": 9_000, "people_ms": 7, "judge_ms": 1}})
    )
    told = describe_folder(written)
    made = fake.store_artifact(told, (written / "report.json").read_bytes())
    job.outputs.add(name="agreed.report", kind="report", artifact_id=made, bytes=1)
    for name, costs in ((JOB_ID, (70_000, 0, 90_500, 0)), (f"{JOB_ID}.agreed", (50_000, 9_000, 7, 1))):
        told_costs = check("shardwork feedback report", logged_in("feedback", "report", name, "--json").stdout)["costs"]
        assert tuple(told_costs[name] for name in ("people_msat", "judge_msat", "people_ms", "judge_ms")) == costs
    for name in (f"{JOB_ID}.feedback.votes", f"{JOB_ID}.agreed.votes"):  # as a job file calls them
        assert json_of(logged_in("feedback", "ratings", name, "--json"))["votes"] == 60


def test_a_job_without_votes_says_whether_any_will_come(fake: Fake, logged_in: Run) -> None:
    def told(name: str) -> tuple[int, str, str]:
        done = logged_in("feedback", "ratings", name, "--json")
        return done.exit_code, error_of(done)["code"], error_of(done)["next_step"]

    job = succeeded_job()
    job.stages.add(name="ask", recipe="people", state="running")
    job.state = "running"
    fake.jobs[JOB_ID] = job
    assert told(JOB_ID)[:2] == told(f"{JOB_ID}.ask")[:2] == (1, "feedback.no_votes_yet")
    code, reason, step = told(f"{JOB_ID}.sft")  # a stage that makes none
    assert (code, reason) == (4, "feedback.no_votes") and "ask" in step
    code, reason, step = told(f"{JOB_ID}.aks")
    assert (code, reason) == (4, "feedback.no_such_stage") and "ask" in step
    job.state = "failed"  # nothing will come any more
    assert told(JOB_ID)[:2] == told(f"{JOB_ID}.ask")[:2] == (4, "feedback.no_votes")


def test_votes_that_prefer_nothing_are_no_file_to_learn_from(run: Run, tmp_path: Path) -> None:
    flips = [vote(number, winner, "judge") for number in range(3) for winner in ("a", "b")]
    place = folder_of(tmp_path / "votes", flips)
    done = run("feedback", "export", place, tmp_path / "out.jsonl", "--to", "preferences", "--json")
    assert (done.exit_code, error_of(done)["code"]) == (3, "feedback.no_preferences")
    assert not (tmp_path / "out.jsonl").exists()


def test_how_far_people_are(fake: Fake, logged_in: Run) -> None:
    fake.jobs[JOB_ID] = succeeded_job()
    figures: dict[str, Any] = {
        "kind": "compare", "items": 9, "items_done": 4, "overlap": 2, "hidden": 3, "paid_msat": 40_000,
        "held_msat": 5_000, "votes": {"paid": 8, "held": 1}, "annotators": {"cleared": 1, "probation": 1}, "here": 1,
        "agreement_alpha": 0.5, "people": [], "votes_left": 9, "seconds_left": None, "pay_msat": 5_000,
        "bias": {
            "shown_first": 0.6, "choices": 9, "shown_first_interval": [0.3, 0.8], "longer": None,
            "longer_interval": None,
        },
    }  # fmt: skip
    fake.people = [
        jobs_pb2.PeopleProgress(stage="ask", state="running", figures_json=json.dumps(figures)),
        jobs_pb2.PeopleProgress(stage="later", state="waiting"),
    ]
    told = check("shardwork feedback progress", logged_in("feedback", "progress", JOB_ID, "--json").stdout)
    assert told["stages"][0]["figures"]["paid_msat"] == 40_000 and told["stages"][1]["figures"] is None
    page = logged_in("feedback", "progress", JOB_ID, "--stage", "ask").stdout
    assert "4 of 9" in page and "40 sat" in page and "alpha 0.50" in page and "later" not in page


def test_the_asking_is_ended(fake: Fake, logged_in: Run) -> None:
    fake.jobs[JOB_ID] = succeeded_job()
    told = check("shardwork feedback close", logged_in("feedback", "close", JOB_ID, "--json").stdout)
    assert told["id"] == JOB_ID
    assert "asked no more" in logged_in("feedback", "close", JOB_ID, "--stage", "ask").output
    assert fake.closed == ["", "ask"]
    refused = logged_in("feedback", "close", "nosuchjob", "--json")
    assert error_of(refused)["code"] == "job.unknown" and refused.exit_code == 4
