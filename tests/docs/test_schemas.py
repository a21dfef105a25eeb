"""Every `--json` output has a published schema, and what the commands print is of that shape, key by key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer.main
from pydantic import ValidationError

from shardwork_client.cli import app
from tests.client import tiny_model
from tests.client.conftest import Run, fake, home, logged_in, run, running
from tests.client.fake_coordinator import Fake
from tests.client.sample_jobs import JOB_ID, answer, event, failed_job, report, running_job, succeeded_job

from .shapes import FILE, MODULE, check

__all__ = ["fake", "home", "logged_in", "run", "running"]


def commands_with_json(command: object, words: str) -> list[str]:
    """Every command below that has --json."""
    inner: dict[str, object] = getattr(command, "commands", {})
    found = [each for name, below in inner.items() for each in commands_with_json(below, f"{words} {name}")]
    options = [option for param in getattr(command, "params", ()) for option in param.opts]
    return [*found, words] if "--json" in options else found


def test_every_command_that_speaks_json_has_a_schema() -> None:
    spoken = set(commands_with_json(typer.main.get_command(app), "shardwork"))
    published = {command for command in MODULE.SHAPES if command.startswith("shardwork ")}
    assert published - {"shardwork (any failure)"} == spoken


def test_the_published_files_are_the_schemas() -> None:
    folder = FILE.parent / "reference" / "schemas"
    texts = {MODULE.file_name(each): MODULE.schema(each) for each in MODULE.SHAPES}
    assert texts == {path.name: path.read_text() for path in folder.iterdir()}
    assert json.loads(texts["shardwork-job-show.json"])["properties"]["budget_msat"] == {
        "title": "Budget Msat",
        "type": "integer",
    }


@pytest.fixture
def busy(fake: Fake, logged_in: Run, tmp_path: Path) -> Fake:
    """A coordinator with a job, a report, sats, and something to tell of everything."""
    fake.jobs[JOB_ID], fake.reports[JOB_ID] = running_job(), report()
    fake.events = [event(1, "job.running", "It runs."), event(2, "round.merged", "Merged.")]
    fake.available_msat = 9_000_000
    fake.quote.reserve_msat, fake.quote.estimate_low_msat, fake.quote.estimate_high_msat = 1_000_000, 500_000, 900_000
    fake.quote.phases.add(stage="sft", phase="learn", rounds=2, shards=2, copies=1, price_msat=5)
    return fake


READS = (
    *(
        "init",
        "demo status",
        "demo stop",
        "config show",
        "wallet balance",
        "wallet history",
        "job init",
        f"job show {JOB_ID}",
        f"job why {JOB_ID}",
    ),
    *(f"job events {JOB_ID}", f"job report {JOB_ID}", "job list"),
)


@pytest.mark.parametrize("words", READS)
def test_what_is_read_is_of_its_shape(words: str, logged_in: Run, busy: Fake) -> None:
    said = logged_in(*words.split(), "--json")
    assert said.exit_code == 0, said.stderr
    command = " ".join(["shardwork", *(word for word in words.split() if word != JOB_ID)])
    check(command, said.stdout)


def test_what_changes_something_answers_in_its_shape(logged_in: Run, busy: Fake, tmp_path: Path) -> None:
    file = tiny_model.write_job(tmp_path)
    for words in (
        *("wallet deposit 5", f"job topup {JOB_ID} 5 --yes", f"job pause {JOB_ID}", f"job resume {JOB_ID}"),
        *(f"job cancel {JOB_ID}", f"job init sft {tmp_path / 'new.yaml'}", f"job validate {file}"),
        *(
            f"job plan {file}",
            f"job submit {file} --yes",
            f"data check {tmp_path / 'train.jsonl'}",
            f"login {busy.join}",
        ),
    ):
        said = logged_in(*words.split(), "--json")
        assert said.exit_code == (3 if words.startswith("data check") else 0), (words, said.stderr)
        verbs = words.split()[: 1 if words.startswith("login") else 2]
        check(" ".join(["shardwork", *verbs]), said.stdout)


def test_each_line_of_a_watch_is_of_its_shape_and_so_is_each_failure(logged_in: Run, busy: Fake) -> None:
    busy.watch_script = [answer(event(1, "job.running", "It runs.")), answer(job=failed_job())]
    said = logged_in("job", "watch", JOB_ID, "--json")
    assert said.exit_code == 8
    lines = [check("shardwork job watch", line) for line in said.stdout.splitlines()]
    assert [line["kind"] for line in lines] == ["job.running", "job.final"]
    failure = check("shardwork (any failure)", said.stderr.splitlines()[-1])
    assert failure["error"]["code"] == "round.rolled_back_twice"
    log = logged_in("job", "logs", JOB_ID, "--json")
    assert [check("shardwork job logs", line)["kind"] for line in log.stdout.splitlines()] == [
        "job.running",
        "round.merged",
    ]


def test_a_key_that_no_schema_knows_is_found(logged_in: Run, busy: Fake) -> None:
    busy.jobs[JOB_ID] = succeeded_job()
    told = check("shardwork job show", logged_in("job", "show", JOB_ID, "--json").stdout)
    for bent in ({**told, "extra": 1}, {key: value for key, value in told.items() if key != "state"}):
        with pytest.raises(ValidationError):
            check("shardwork job show", json.dumps(bent))
