"""The report as one document: everything in it, nothing fetched, nothing of a stranger's read as markup."""

from __future__ import annotations

import html.parser
import re

import pytest

from shardwork.client.display.curve import curve, ticks
from shardwork.client.results import JobStatus, Output, PhaseSpent, Quote, Report, Round, Sample, ShardPayment, Stage
from shardwork.client.results import WorkerShare as Share
from shardwork.why import Why

EVIL = "<img src=x onerror=alert(1)>\"'"


def learned(number: int, train: float | None, held_out: float | None, state: str = "merged") -> Round:
    kind = "learn" if number else "setup"
    return Round(number=number, kind=kind, state=state, train_loss=train, eval_loss=held_out, accepted=4, seconds=2.0)


def stage(name: str = "sft") -> Stage:
    rounds = (learned(0, None, 5.5), learned(1, 5.0, 4.5), learned(2, 4.8, 4.9, "rolled_back"), learned(3, 4.0, 4.25))
    known = {f"{side}.{key}": 3.0 for side in ("train", "held_out") for key in ("rows", "reproduced", "longest_run")}
    alarm = Why(code="alarm.length", sentence=f"{name} grows.", next_step=f"Read {name}.")
    return Stage(
        name=name,
        recipe="sft",
        state="done",
        planned_rounds=3,
        rounds=rounds,
        best_round=3,
        memorised=known,
        alarms=(alarm,),
        safety={"harmful.asked": 7.0, "harmful.refused_before": 6.0, "harmful.refused_after": 2.0},
    )


def report(text: str = "river", state: str = "succeeded") -> Report:
    why = Why(code="round.rolled_back", sentence=f"{text} rose.", evidence={"where": text}, next_step=f"Mend {text}.")
    job = JobStatus(
        id="3f2a90bc12de",
        name=text,
        state=state,
        why=why,
        stages=(stage(text),),
        shards={"done": 7},
        budget_msat=30_000,
        spent_msat=20_400,
        refunded_msat=9_600,
        outputs=(Output(name=f"{text}.model", kind="adapter", artifact_id="ab" * 32, bytes=4800),),
        created_unix_ms=1_795_400_000_000,
        ended_unix_ms=1_795_400_075_000,
    )
    quote = Quote(
        shards=7,
        rounds=3,
        estimate_low_msat=20_400,
        estimate_high_msat=30_600,
        compute_msat=8_000,
        verification_msat=12_000,
        fees_msat=400,
        reserve_msat=30_600,
        seconds_low=0,
        seconds_high=0,
        upload_bytes_per_shard=0,
        download_bytes_per_shard=0,
    )
    return Report(
        status=job,
        workers=(Share(worker_id="a1" * 8, name=text, shards=7, accepted=7, rejected=1, paid_msat=20_000),),
        payments=(
            ShardPayment(shard=f"{job.id}/sft/r1/learn/s0", replica=1, worker_id="a1" * 8, phase="learn", msat=9),
        ),
        payments_left_out=2,
        quote=quote,
        spent=(PhaseSpent(phase=text, results=7, paid_msat=20_000),),
        samples=(Sample(stage=text, prompt=text, completion=f"{text} after", base=f"{text} before", side="held_out"),),
    )


class Tags(html.parser.HTMLParser):
    """Every tag with its attributes, and all text between."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_everything_that_a_report_knows_is_in_it() -> None:
    text = Tags(report(state="failed").html()).text
    for part in (
        "river rose.",
        "Mend river.",
        "river grows.",
        "Read river.",
        "2 of 7 harmful requests (its base 6)",
        "round.rolled_back",
        "river before",
        "river after",
    ):
        assert part in text
    for part in ("20.4 sat", "30 sat", "9.6 sat", "20.4 – 30.6 sat", "0.4 sat", "20 sat", "ab" * 32, "a1" * 8):
        assert part in text
    for part in ("−22.7 %", "knows by heart", "sft/r1/learn/s0 (copy 1)", "the last 1 of 3 payments", "PeftModel"):
        assert part in text


def test_no_strangers_text_becomes_markup() -> None:
    plain, evil = Tags(report(state="failed").html()), Tags(report(EVIL, "failed").html())
    assert not {"img", "script"} & {tag for tag, _ in evil.tags}
    assert not [name for _, attributes in evil.tags for name in attributes if name.startswith("on")]
    assert evil.text.count(EVIL) >= 8
    assert [tag for tag, _ in plain.tags] == [tag for tag, _ in evil.tags]


def test_nothing_is_fetched_from_anywhere() -> None:
    document = report().html()
    assert not re.search(r"(?i)https?:|url\(|@import|<link|<script", document)
    assert not [each for each in Tags(document).tags if {"src", "href"} & set(each[1])]
    policy = next(each[1] for each in Tags(document).tags if "http-equiv" in each[1])
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_a_curve_has_a_point_for_each_loss_and_hollow_ones_for_rounds_that_were_undone() -> None:
    picture = curve(stage())
    assert picture.count('class="held-out"') + picture.count('class="held-out undone"') == 4 + 1
    assert picture.count('class="train"') + picture.count('class="train undone"') == 3 + 1
    assert picture.count("undone") == 2
    assert "held-out loss from 5.5000 in round 0 to 4.2500 in round 3" in picture
    heights = [
        float(found) for found in re.findall(r'<circle class="held-out[^"]*" cx="[\d.]+" cy="([\d.]+)"', picture)
    ]
    losses = [5.5, 4.5, 4.9, 4.25]
    assert sorted(range(4), key=lambda at: heights[at]) == sorted(range(4), key=lambda at: -losses[at])


def test_a_stage_without_losses_has_no_curve_and_a_diverged_one_leaves_that_point_out() -> None:
    assert curve(Stage(name="words", recipe="count", state="done", planned_rounds=1)) == ""
    lost = Stage(
        name="sft",
        recipe="sft",
        state="failed",
        planned_rounds=2,
        rounds=(learned(1, 3.0, 3.0), learned(2, float("nan"), float("inf"))),
    )
    assert curve(lost).count("<circle") == 2


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (4.7, 5.75, [4.5, 5.0, 5.5, 6.0]), (3.0, 3.0, [3.0, 4.0])],
)
def test_lines_across_are_at_round_values_around_all_losses(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)
