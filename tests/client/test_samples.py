"""`job samples`: rows side by side and as JSON, page by page, from no more of a file than it shows; and refusals."""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from shardwork.artifact import LEAF_BYTES, describe_folder
from shardwork.client.blocking import Client
from shardwork.errors import InvalidInput
from shardwork.v1 import jobs_pb2
from tests.docs.shapes import check

from .conftest import Run, error_of, json_of
from .fake_coordinator import NOW_MS, Fake
from .sample_jobs import JOB_ID
from .terminal import Terminal

COMMAND = "shardwork job samples"
#: an escape sequence, its one-letter form, a window's title, both ways of turning letters round, and what hides them
HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b2J \u202egnol\u2066 \u200b\r\x00\U000e0041"
Row = dict[str, Any]


def answered(number: int, model: str = "old", **more: Any) -> Row:
    answer = {"model": model, "text": f"{model} says {number}", "tokens": 7, "logprob": -1.5, "ended": number != 2}
    return {"prompt_id": f"p{number}", "prompt": f"Tell me of {number}.", "answers": [answer], **more}


OLD = [answered(number) for number in range(25)]
NEW = [answered(number, "new") for number in range(24, -1, -1)]
CHOSEN = [{"prompt": "Which?", "chosen": "this", "rejected": "that", "confidence": 0.75, "votes": 4}]
BROKEN = b'{"prompt": "first"}\nno JSON\n{"prompt": "third"}\n'


def lines(rows: list[Row]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def stored(fake: Fake, folder: Path, files: dict[str, bytes]) -> str:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = describe_folder(folder)
    return fake.store_artifact(manifest, b"".join(files[entry.path] for entry in manifest.files))


@pytest.fixture
def made(fake: Fake, tmp_path: Path) -> jobs_pb2.JobView:
    """A job that was cancelled when its last stage ran."""
    outputs = {
        "before.rows": {"rows.jsonl": lines(OLD)},
        "after.rows": {"a.txt": b"not rows", "rows.jsonl": lines(NEW)},
        "judge.rows": {"preferences.jsonl": lines(CHOSEN)},
        "empty.rows": {"rows.jsonl": b""},
        "broken.rows": {"rows.jsonl": BROKEN},
        "hostile.rows": {
            "rows.jsonl": lines([answered(0, HOSTILE, prompt=f"{HOSTILE}\n\tindented", prompt_id=HOSTILE)])
        },
        "odd.rows": {"report.json": b"{}"},
        "tune.model": {"model.safetensors": b"weights"},
    }
    names = [*(name.partition(".")[0] for name in outputs), "late", "judge-2"]
    job = jobs_pb2.JobView(
        id=JOB_ID,
        name="align",
        state="running",
        stages=[jobs_pb2.StageView(name=name, recipe="generate", state="done", planned_rounds=1) for name in names],
        outputs=[
            jobs_pb2.OutputView(
                name=name,
                kind=name.partition(".")[2],
                artifact_id=stored(fake, tmp_path / "made" / name, files),
                bytes=sum(map(len, files.values())),
            )
            for name, files in outputs.items()
        ],
        created_unix_ms=NOW_MS,
    )
    next(stage for stage in job.stages if stage.name == "late").state = "running"
    fake.jobs[JOB_ID] = job
    return job


@pytest.fixture
def samples(logged_in: Run, made: jobs_pb2.JobView) -> Run:
    """Runs `job samples ID ARGUMENTS…`."""
    return lambda *arguments: logged_in("job", "samples", JOB_ID, *arguments)


def page_of(samples: Run, *arguments: object) -> Any:
    """The page of what it prints with --json, which is of its published shape."""
    result = samples(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return check(COMMAND, result.stdout.strip())["page"]


# ---- what is shown --------------------------------------------------------------------------------------------------


def test_without_an_output_those_with_rows_are_listed(samples: Run) -> None:
    result = samples()
    assert result.exit_code == 0
    assert re.search(r"^before\.rows +generate +3.7 kB$", result.stdout, re.MULTILINE)
    assert "tune.model" not in result.stdout and f"shardwork job samples {JOB_ID} odd.rows" in result.stderr
    told = json_of(samples("--json"))
    assert told["page"] is None and [one["name"] for one in told["outputs"]][:2] == ["before.rows", "after.rows"]


def test_a_row_has_its_prompt_its_answers_and_what_is_said_of_them(samples: Run) -> None:
    result = samples("before.rows", "--rows", 1, "--at", len(lines(OLD[:2])))
    assert result.exit_code == 0
    shown = [line.rstrip() for line in result.stdout.splitlines()]
    assert shown == [
        "p2",
        "│ Tell me of 2.",
        "",
        "old",
        "7 tokens, log-probability -1.5, cut off",
        "old says 2",
    ]


def test_what_was_chosen_is_marked_in_the_words_and_the_stages_name_is_enough(samples: Run) -> None:
    result = samples("judge")
    assert "confidence 75 %, 4 votes" in result.stdout
    assert re.search(r"✓ chosen +✗ rejected\nthis +that", result.stdout)


def test_another_output_answers_the_same_prompts_beside(samples: Run) -> None:
    result = samples("before.rows", "--beside", "after", "--rows", 3)
    for number in range(3):
        assert re.search(rf"old says {number} +new says {number}\n", result.stdout), number
    assert re.search(r"old · before\.rows +new · after\.rows", result.stdout)


def test_json_holds_the_same_values_and_where_the_next_page_begins(samples: Run) -> None:
    page = page_of(samples, "before.rows", "--rows", 2, "--beside", "after.rows")
    assert (page["output"], page["beside"], page["at"]) == ("before.rows", "after.rows", 0)
    assert page["next_at"] == len(lines(OLD[:2])) and page["file_bytes"] == len(lines(OLD))
    assert page["samples"][0] == {
        "prompt_id": "p0",
        "prompt": text("Prompt", "Tell me of 0."),
        "texts": [
            text("old · before.rows", "old says 0", tokens=7, logprob=-1.5, ended=True),
            text("new · after.rows", "new says 0", tokens=7, logprob=-1.5, ended=True),
        ],
        "more": 0,
        "confidence": None,
        "votes": None,
    }


def text(label: str, words: str, **said: Any) -> Row:
    numbers = dict.fromkeys(("mark", "tokens", "logprob", "ended"))
    return {"label": label, "text": words, "more": 0, **numbers, **said}


def test_the_command_that_is_told_shows_the_next_page_and_none_is_lost(samples: Run, logged_in: Run) -> None:
    seen: list[str] = []
    words = [
        "job",
        "samples",
        JOB_ID,
        "before.rows",
        "--rows",
        "4",
        "--search",
        "tell  ME of",
        "--beside",
        "after.rows",
    ]
    while words:
        result = logged_in(*words)
        assert result.exit_code == 0, result.stderr
        seen += re.findall(r"^p\d+$", result.stdout, re.MULTILINE)
        following = re.search(r"→ next:  shardwork (.+)", result.stderr)
        words = shlex.split(following[1]) if following else []
    assert seen == [f"p{number}" for number in range(25)]


def test_prompts_are_searched(samples: Run) -> None:
    page = page_of(samples, "before.rows", "--search", "OF 2")
    assert [one["prompt_id"] for one in page["samples"]] == ["p2", "p20", "p21", "p22", "p23", "p24"]
    none = samples("before.rows", "--search", "zzz")
    assert none.exit_code == 0 and none.stdout == "" and none.stderr == "No prompt here has these words.\n"


def test_an_output_without_rows_in_it_says_so(samples: Run) -> None:
    result = samples("empty.rows")
    assert result.exit_code == 0 and result.stderr == "There are no rows here.\n"
    assert page_of(samples, "empty.rows")["samples"] == []


# ---- strangers' rows ------------------------------------------------------------------------------------------------


def test_nothing_that_drives_a_terminal_or_turns_letters_round_reaches_it(samples: Run) -> None:
    for result in (samples("hostile.rows"), samples("hostile.rows", "--json")):
        assert result.exit_code == 0
        kinds = {unicodedata.category(letter) for letter in result.stdout if letter != "\n"}
        assert not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}, kinds
    assert "?[31mred?]0;title" in samples("hostile.rows").stdout
    assert re.search(r"^│ +indented", samples("hostile.rows").stdout, re.MULTILINE)
    # in JSON nothing is lost
    assert page_of(samples, "hostile.rows")["samples"][0]["prompt_id"] == HOSTILE


@pytest.mark.parametrize("columns", [30, 80, 200])
def test_no_line_is_wider_than_the_terminal(samples: Run, columns: int) -> None:
    terminal = Terminal("job", "samples", JOB_ID, "before.rows", "--beside", "after.rows", "-n", 3, columns=columns)
    assert terminal.finish() == 0
    # styles are ours
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.text)
    shown = [line.rstrip("\r") for line in plain.split("→ next")[0].split("\n")]
    # a letter whose bytes came in two reads is drawn as two
    assert max(len(line) for line in shown if "\ufffd" not in line) <= columns
    beside = [line for line in shown if "old says 1" in line and "new says 1" in line]
    assert len(beside) == (columns > 70)


def test_a_broken_line_is_named_and_the_others_are_shown(samples: Run) -> None:
    result = samples("broken.rows")
    assert result.exit_code == 0
    assert "│ first" in result.stdout and "│ third" in result.stdout
    assert "The line at byte 20 is no JSON object" in result.stderr and "rows.jsonl:2" in result.stderr
    [problem] = page_of(samples, "broken.rows")["problems"]
    assert (problem["file"], problem["line"], problem["code"]) == ("rows.jsonl", 2, "samples.broken_line")


def test_a_page_fetches_the_leaves_that_it_shows_and_keeps_nothing(
    samples: Run, fake: Fake, made: jobs_pb2.JobView, tmp_path: Path, home: Path
) -> None:
    rows = [answered(number, filling="x" * 200_000) for number in range(20)]
    made.outputs[0].artifact_id = stored(fake, tmp_path / "large", {"a": b"a" * 10, "rows.jsonl": lines(rows)})
    page = page_of(samples, "before.rows", "--rows", 2)
    assert [first for _, first in fake.downloads] == [1]
    fake.downloads.clear()
    page = page_of(samples, "before.rows", "--rows", 2, "--at", len(lines(rows[:14])))
    assert [one["prompt_id"] for one in page["samples"]] == ["p14", "p15"]
    leaves = {1 + at // LEAF_BYTES for at in (len(lines(rows[:14])), len(lines(rows[:16])) - 1)}
    assert {first for _, first in fake.downloads} == leaves
    assert not list(home.rglob("*.jsonl"))


def test_a_damaged_piece_is_refused(samples: Run, fake: Fake, made: jobs_pb2.JobView) -> None:
    fake.stored[made.outputs[0].artifact_id][30] ^= 1
    result = samples("before.rows", "--json")
    assert result.exit_code == 1 and error_of(result)["code"] == "artifact.bad_leaf"


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code", "step"),
    [
        (("befor.rows",), "samples.no_output", 4, "Did you mean before.rows?"),
        (("before.rows", "--beside", "aftr"), "samples.no_output", 4, "Did you mean after.rows?"),
        (("something",), "samples.no_output", 4, "It has: before.rows, after.rows"),
        (("tune.model",), "samples.no_output", 4, "It has: before.rows, after.rows"),
        (("late",), "samples.not_made", 1, f"shardwork job watch {JOB_ID}"),
        (("late.rows",), "samples.not_made", 1, f"shardwork job watch {JOB_ID}"),
        (("tune",), "samples.not_made", 1, "Rows are in: before.rows, after.rows"),
        (("odd.rows",), "samples.no_rows", 4, "another output"),
        (("before.rows", "--at", 10**6), "samples.past_end", 3, "Begin at 0"),
        (("before.rows", "--search", "x" * 201), "samples.long_words", 3, "fewer words"),
        (("--search", "x"), "usage", 2, "Name the one to read"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_what_can(
    samples: Run, arguments: tuple[object, ...], code: str, exit_code: int, step: str
) -> None:
    result = samples(*arguments, "--json")
    error = error_of(result)
    assert (result.exit_code, error["code"], result.stdout) == (exit_code, code, "")
    assert step in error["next_step"]
    plain = samples(*arguments)
    assert plain.exit_code == exit_code and error["sentence"] in " ".join(plain.stderr.split())


@pytest.mark.parametrize("rows", [0, -1, 101, 10**30, "two"])
def test_a_count_of_rows_that_is_none_is_a_wrong_use(samples: Run, fake: Fake, rows: object) -> None:
    result = samples("before.rows", "--rows", rows)
    assert result.exit_code == 2 and "--rows" in result.stderr and fake.downloads == []


def test_a_job_that_is_not_there_is_exit_4(logged_in: Run) -> None:
    assert logged_in("job", "samples", "ffff", "before.rows").exit_code == 4


def test_a_cancelled_job_shows_what_it_made_and_says_what_it_will_not(samples: Run, made: jobs_pb2.JobView) -> None:
    made.state = "cancelled"
    assert samples("before.rows").exit_code == 0
    result = samples("late.rows", "--json")
    error = error_of(result)
    assert (result.exit_code, error["sentence"]) == (1, "Stage late made no rows.")
    assert error["evidence"]["job_state"] == "cancelled" and "Rows are in: before.rows" in error["next_step"]


@pytest.mark.parametrize(("state", "words"), [("running", "has made no rows yet"), ("cancelled", "made no rows")])
def test_a_job_without_rows_says_so(samples: Run, made: jobs_pb2.JobView, state: str, words: str) -> None:
    made.state = state
    del made.outputs[:]
    result = samples()
    assert result.exit_code == 0 and f"The job {words}." in result.stderr
    assert json_of(samples("--json")) == {"id": JOB_ID, "outputs": [], "page": None}


def test_a_deleted_output_is_said_to_be_deleted(samples: Run, made: jobs_pb2.JobView) -> None:
    made.outputs[0].deleted = True
    assert re.search(r"^before\.rows +generate +deleted", samples().stdout, re.MULTILINE)
    result = samples("before.rows", "--json")
    assert result.exit_code == 4 and error_of(result)["code"] == "job.output_deleted"


def test_python_programs_have_the_same_page(samples: Run, fake: Fake, home: Path) -> None:
    with Client(home=home) as client:
        job = client.job(JOB_ID)
        page = job.samples("before", search="of 24")
        assert [one.prompt_id for one in page.samples] == ["p24"] and page.output.name == "before.rows"
        for rows, at in ((0, 0), (101, 0), (1, -1)):
            with pytest.raises(InvalidInput) as refused:
                job.samples("before", rows=rows, at=at)
            assert refused.value.code.startswith("samples.bad_")
