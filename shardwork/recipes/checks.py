"""Light checks: whether what a worker hands in and says of a learning phase can be, before any byte is read.

Owns the bounds of metrics and the lists of files. What the bytes hold is checked by the phases that read them. Pure;
called by `learning`.
"""

from __future__ import annotations

import math

from ..why import Why
from .base import Finding, Reported
from .continuing import odd_metric
from .objectives import LearnObjective, PolicyObjective, PreferenceObjective, RewardObjective
from .orders import EvaluateOrder, LearnOrder, PublishOrder

DELTA_FILES = frozenset({"delta.safetensors", "m.safetensors", "v.safetensors", "update.json"})
#: kinds of file that a published model and its samples may hold: nothing that runs
PUBLISHED = (".safetensors", ".json", ".jsonl", ".md", ".jinja", ".txt", ".model")
#: tokens that publishing reads and writes to see what was learned by heart: 32 rows of at most 96
PROBED_TOKENS = 3072
#: a few short texts: whoever publishes must not make the owner fetch more
MOST_SAMPLES_BYTES = 256 * 1024
#: what it may report of that, of training rows and of held-out ones
MEMORY_METRICS = frozenset(
    f"memorised.{side}.{name}"
    for side in ("train", "held_out")
    for name in ("rows", "reproduced", "longest_run", "mean_run")
)
#: nats a token: a model that knows nothing is near ln(vocabulary), some 12 at most, and one that diverged, or a
#: candidate that overshot, may be far above
MOST_LOSS, WORST_LOSS = 100.0, 1e6
#: what a learn shard with an objective may tell beside its losses, and within which bounds
OBJECTIVE_METRICS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("accuracy", "clip_fraction"), (0.0, 1.0)),
    **dict.fromkeys(("margin", "reward", "kl"), (-math.inf, math.inf)),
    **dict.fromkeys(("entropy", "length", "value_loss", "left_out"), (0.0, math.inf)),
    "explained_variance": (-math.inf, 1.0),
}


def check(phase: str, order_json: str, reported: Reported) -> Finding:
    """The light check of one result of a learning recipe: what it hands in and says, against its order."""
    expected = {"init": {"checkpoint"}, "learn": {"delta"}, "evaluate": set[str](), "publish": {"model", "samples"}}
    if phase not in expected:
        return _refused("check.unknown_phase", f"No worker phase is called {phase!r}.")
    if set(reported.outputs) != expected[phase]:
        return _refused(
            "check.outputs",
            "The outputs are not the ones this phase makes.",
            expected=", ".join(sorted(expected[phase])) or "none",
            got=", ".join(sorted(reported.outputs)) or "none",
        )
    bad = [name for name, value in reported.metrics.items() if not math.isfinite(value)]
    if bad:
        return _refused("check.not_finite", "A metric is not a finite number.", metric=bad[0])
    if phase == "learn":
        return _check_learn(LearnOrder.model_validate_json(order_json), reported)
    if phase == "evaluate":
        return _check_evaluate(EvaluateOrder.model_validate_json(order_json), reported)
    if phase == "publish":
        return _check_publish(PublishOrder.model_validate_json(order_json), reported)
    return _check_files(phase, reported)


def _refused(code: str, sentence: str, **evidence: str) -> Finding:
    return Finding(Why(code=code, sentence=sentence, evidence=evidence))


def _check_learn(order: LearnOrder, reported: Reported) -> Finding:
    files, wanted = set(reported.output_files["delta"]), DELTA_FILES
    if wanted - files:
        return _refused("check.files", "The delta lacks files.", missing=", ".join(sorted(wanted - files)))
    if files - wanted:
        return _refused("check.files", "The delta holds files that are no part of it.", extra=min(files - wanted)[:80])
    for name in ("train_loss", "loss_first", "loss_last", "tokens"):
        if name not in reported.metrics:
            return _refused("check.metrics", "A metric of the learn phase is missing.", metric=name)
    policy = isinstance(order.objective, PolicyObjective)
    mean = most_loss(order.objective)
    for name, most in (("train_loss", mean), ("loss_first", WORST_LOSS), ("loss_last", WORST_LOSS)):
        if not (-most if policy else 0) <= reported.metrics[name] < most:
            sentence = "The reported loss is not plausible."
            return _refused("check.loss_range", sentence, metric=name, loss=str(reported.metrics[name]))
    odd = _odd_objective_metric(order, reported) if order.objective is not None else ""
    if odd:
        return _refused("check.metrics", "A metric of the objective cannot be.", metric=odd)
    sequences = 2 if is_of_pairs(order.objective) else 1
    most = sequences * order.steps * order.batch_size * order.max_length
    # of rollouts, all may be left out
    if not (0 <= reported.metrics["tokens"] <= most and (policy or reported.metrics["tokens"] > 0)):
        return _refused(
            "check.tokens",
            "The reported tokens do not fit the order.",
            tokens=str(reported.metrics["tokens"]),
            most=str(most),
        )
    return Finding()


def most_loss(objective: LearnObjective | None) -> float:
    """What a mean training loss lies below. Squared errors of scores, and IPO's of 1 / (2 beta), know no nats."""
    return MOST_LOSS if objective is None else WORST_LOSS


def is_of_pairs(objective: LearnObjective | None) -> bool:
    """Whether an item is two answers to one prompt, of which one is the better."""
    match objective:
        case RewardObjective():
            return objective.data == "pairs"
        case PreferenceObjective():
            return objective.loss != "kto"
        case _:
            return False


def _odd_objective_metric(order: LearnOrder, reported: Reported) -> str:
    for name, (least, most) in OBJECTIVE_METRICS.items():
        if name in reported.metrics and not least <= reported.metrics[name] <= most:
            return name
    return ""


def _check_evaluate(order: EvaluateOrder, reported: Reported) -> Finding:
    wanted = {"before.test_loss"}
    for name in order.candidates:
        wanted |= {f"{name}.selection_loss", f"{name}.test_loss", f"{name}.test_se"}
        if is_of_pairs(order.objective):
            wanted |= {f"{name}.accuracy", f"{name}.calibration_error"}
    missing = wanted - set(reported.metrics)
    if missing:
        return _refused("check.metrics", "A metric of the evaluation is missing.", metric=sorted(missing)[0])
    extra = set(reported.metrics) - wanted
    if extra:
        return _refused("check.metrics", "The evaluation names a metric that was not asked for.", metric=min(extra))
    limits = {name: _limit(name) for name in sorted(wanted)}
    odd = [name for name, most in limits.items() if not 0 <= reported.metrics[name] <= most]
    if odd:
        sentence = "A loss is not plausible."
        return _refused("check.loss_range", sentence, metric=odd[0], loss=str(reported.metrics[odd[0]]))
    return Finding()


def _limit(metric: str) -> float:
    if metric.endswith(("accuracy", "calibration_error")):
        return 1.0
    return WORST_LOSS if metric.endswith("_loss") else math.inf


def _check_publish(order: PublishOrder, reported: Reported) -> Finding:
    # here, because the alignment package is built on this module
    from .alignment.guards.safety import PREFIX, odd_metric

    told = {name: value for name, value in reported.metrics.items() if name.startswith(PREFIX)}
    odd = odd_metric(told) if order.safety else min(told, default="")
    if odd:
        return _refused("check.metrics", "Refusals are told in numbers that cannot be.", metric=odd[:80])
    return _check_memory(reported)


def _check_memory(reported: Reported) -> Finding:
    told = {name: value for name, value in reported.metrics.items() if name.startswith("memorised.")}
    odd = [name for name in sorted(told) if name not in MEMORY_METRICS or not 0 <= told[name] <= PROBED_TOKENS]
    odd += [
        f"memorised.{side}.reproduced"
        for side in ("train", "held_out")
        if told.get(f"memorised.{side}.reproduced", 0) > told.get(f"memorised.{side}.rows", 0)
    ]
    if odd:
        return _refused(
            "check.metrics", "What was learned by heart is told in numbers that cannot be.", metric=odd[0][:80]
        )
    size = sum(reported.output_files["samples"].values())
    if size > MOST_SAMPLES_BYTES:
        return _refused("check.samples", "The samples are far larger than samples can be.", bytes=str(size))
    return _check_files("publish", reported)


def _check_files(phase: str, reported: Reported) -> Finding:
    for name, files in sorted(reported.output_files.items()):
        bad = [path for path in sorted(files) if not path.endswith(PUBLISHED)]
        if bad:
            sentence = "An output holds a kind of file that is not allowed."
            return _refused("check.files", sentence, output=name, file=bad[0][:80])
    name = "checkpoint" if phase == "init" else "model"
    odd = odd_metric(reported) if phase == "init" else ""
    if odd:
        return _refused("check.metrics", "What is told of the checkpoint that it began with cannot be.", metric=odd)
    if not any(path.endswith(".safetensors") for path in reported.output_files[name]):
        return _refused("check.files", "An output holds no weights.", output=name)
    return Finding()
