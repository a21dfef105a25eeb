"""Curves: what a job's rounds did over time, as series for the charts of its page, which the browser draws."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ... import views
from ...machine.states import FINAL_ROUND
from ...records import Job, Round, Stage
from ...store.base import Transaction

#: rounds that one chart shows; more are thinned out
MOST_POINTS = 400
#: (title, unit, (measure, label) …) of what recipes measure beside losses
MEASURED = (
    ("Reward", "reward", (("reward", "reward"), ("reward_seen", "on prompts learned from"))),
    ("Distance from the reference", "nats an answer", (("kl", "KL"),)),
    ("Held-out pairs", "share", (("accuracy", "right"), ("calibration_error", "calibration error"))),
    ("Answers", "tokens", (("length", "mean length"),)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    label: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One drawing over the rounds of a stage, or of all in a row."""

    title: str
    unit: str
    rounds: Sequence[float]
    series: Sequence[Series]

    def data(self) -> dict[str, object]:
        """For the browser."""
        return {
            "unit": self.unit,
            "labels": [one.label for one in self.series],
            "data": [list(self.rounds), *(list(one.values) for one in self.series)],
        }

    def summary(self) -> str:
        """What the drawing shows, in words."""
        told: list[str] = []
        for one in self.series:
            known = [value for value in one.values if value is not None]
            if known:
                told.append(f"{one.label} from {known[0]:.4g} to {known[-1]:.4g}")
        return f"{self.title}: {'; '.join(told)}" if told else self.title


def charts(tx: Transaction, job: Job, stages: Sequence[Stage], rounds: Sequence[Round]) -> list[Chart]:
    """Loss, throughput, bytes and cost; what has no value anywhere is left out."""
    learned = [one for stage in stages for one in rounds if one.stage == stage.name and one.kind in ("learn", "map")]
    learned = [one for one in learned if one.state in FINAL_ROUND]
    if not learned:
        return []
    step = -(-len(learned) // MOST_POINTS)
    # counted from the last one, which is the one that people look for
    thin = learned[::-step][::-1]
    tokens = views.round_tokens(tx, job.id)
    places = [float(place) for place in range(len(learned), 0, -step)][::-1]

    def series(label: str, value: Callable[[Round], float | None]) -> Series:
        return Series(label=label, values=[value(one) for one in thin])

    found = [
        _loss(thin, places, stages),
        *_measured(thin, places),
        Chart(
            title="Throughput",
            unit="tokens/s",
            rounds=places,
            series=[series("tokens per second", lambda one: _per_second(tokens.get((one.stage, one.number), 0), one))],
        ),
        Chart(
            title="Bytes",
            unit="MB",
            rounds=places,
            series=[
                series("from workers", lambda one: one.bytes_up / 1e6),
                series("to workers", lambda one: one.bytes_down / 1e6),
            ],
        ),
        Chart(
            title="Cost",
            unit="sat",
            rounds=places,
            series=[
                series("pay", lambda one: one.paid_msat / 1000),
                series("fees", lambda one: one.fees_msat / 1000),
            ],
        ),
    ]
    return [chart for chart in found if any(value for one in chart.series for value in one.values)]


def _loss(rounds: Sequence[Round], places: Sequence[float], stages: Sequence[Stage]) -> Chart:
    """Beginning with what held-out loss was before the first round."""
    start = _start(stages[0]) if stages else None
    return Chart(
        title="Loss",
        unit="nats per token",
        rounds=[0.0, *places] if start is not None else places,
        series=[
            Series(
                label="training", values=[*([None] if start is not None else []), *(one.train_loss for one in rounds)]
            ),
            Series(
                label="held out", values=[*([start] if start is not None else []), *(one.eval_loss for one in rounds)]
            ),
        ],
    )


def _measured(rounds: Sequence[Round], places: Sequence[float]) -> list[Chart]:
    """What a policy's rounds measured: its reward, how far it went, how long its answers are."""
    measures = [json.loads(one.measures_json) for one in rounds]
    return [
        Chart(
            title=title,
            unit=unit,
            rounds=places,
            series=[Series(label=label, values=[one.get(key) for one in measures]) for key, label in shown],
        )
        for title, unit, shown in MEASURED
    ]


def _start(stage: Stage) -> float | None:
    found = json.loads(stage.numbers_json).get("eval_loss_start")
    return None if found is None else float(found)


def _per_second(tokens: int, round_: Round) -> float | None:
    seconds = (round_.ended_ms - round_.started_ms) / 1000
    return tokens / seconds if tokens and seconds > 0 else None
