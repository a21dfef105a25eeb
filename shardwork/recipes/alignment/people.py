"""Recipe `people`: items put to people over the web, each judgement paid like a shard.

split (executor) makes the items, ask is answered by people (`shardwork_coordinator.people`), join turns accepted votes
into rows. No worker ever gets one of these shards; workers' checks refuse them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...errors import InvalidInput
from ...jobs.spec import StageSpec
from ...money import MSAT_PER_SAT
from ...why import Why
from ..base import (
    Computed,
    Content,
    Context,
    Finding,
    Observation,
    Observed,
    PlanInput,
    Reported,
    RoundKind,
    ShardPlan,
    StageFacts,
    StageType,
    Unaudited,
)
from ..params import validate_params
from . import people_files
from .guards.wins import wins_among
from .people_orders import AskOrder, Consensus, ItemsOrder, Kind, VotesOrder
from .phases import judgements

#: items with a known answer that a newcomer is shown first, and told whether they were right; unpaid
PRACTICE_ITEMS = 3
MOST_ITEMS = 1_000_000
MOST_LETTERS = 10_000

Scale = Annotated[str, Field(min_length=1, max_length=40)]
Share = Annotated[float, Field(ge=0, le=0.5)]


class PeopleParams(BaseModel):
    """Parameters of `people`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Annotated[
        Kind, Field(description="compare two answers, rank some, score one, or review rows: keep, discard, edit")
    ] = "compare"
    title: Annotated[str, Field(min_length=1, max_length=120, description="what people see in the list of tasks")]
    guideline: Annotated[
        str, Field(max_length=MOST_LETTERS, description="what is better and why, as plain text; shown as it is written")
    ] = ""
    pay_sats: Annotated[int, Field(ge=1, le=1_000_000, description="for each accepted judgement")]
    overlap: Annotated[int, Field(ge=1, le=25, description="people who judge each item")] = 3
    gold_share: Annotated[Share, Field(description="hidden items with a known answer, rows that say `gold`")] = 0.1
    repeat_share: Annotated[Share, Field(description="items shown to the same person again, answers swapped")] = 0.1
    least_seconds: Annotated[
        Annotated[float, Field(ge=0, le=600)] | Literal["auto"],
        Field(description="nobody judges an item in less; 'auto' goes by the length of its text"),
    ] = "auto"
    most_per_person: Annotated[int, Field(ge=1, le=100_000, description="judgements of one person, no more")] = 500
    answers: Annotated[int, Field(ge=2, le=8, description="answers that are ranked together")] = 2
    pairs_per_prompt: Annotated[int, Field(ge=1, le=28, description="comparisons drawn from one prompt's answers")] = 1
    items: Annotated[
        Annotated[int, Field(ge=1, le=MOST_ITEMS)] | Literal["auto"],
        Field(description="items that are asked at most; 'auto': all of the rows that were measured"),
    ] = "auto"
    scores: Annotated[tuple[Scale, ...], Field(max_length=8, description="scales of 1 to 5 asked beside it")] = ()
    reasons: Annotated[tuple[Scale, ...], Field(max_length=20, description="tags that may be given as reasons")] = ()
    consensus: Annotated[
        Consensus, Field(description="how votes on an item become a row; points are averaged whatever it says")
    ] = "dawid_skene"
    invitation: Annotated[
        str, Field(max_length=64, pattern=r"^[A-Za-z0-9_-]*$", description="a word without which nobody may join")
    ] = ""

    @property
    def shown(self) -> int:
        """Answers of a prompt that are on the screen together."""
        return self.answers if self.kind in ("compare", "rank") else 1

    @model_validator(mode="after")
    def _fits(self) -> PeopleParams:
        if self.kind == "score" and not self.scores:
            raise ValueError("kind 'score' needs at least one name in scores")
        for name, given in (("scores", self.scores), ("reasons", self.reasons)):
            if len(set(given)) != len(given) or not all(one.isprintable() for one in given):
                raise ValueError(f"{name} are different printable words")
        if not self.title.isprintable():
            raise ValueError("the title holds no control characters or line breaks")
        if self.consensus == "bradley_terry" and self.kind in ("score", "review"):
            raise ValueError("consensus 'bradley_terry' compares answers, and this kind shows one")
        if self.kind != "rank" and self.answers != 2:
            raise ValueError("only kind 'rank' has another number of answers")
        return self


def params_of(stage: StageSpec) -> PeopleParams:
    """Of a frozen stage."""
    return PeopleParams.model_validate(stage.params)


def beside_basis_points(stage: StageSpec) -> int:
    """Hidden and repeated items for each 10,000 that are asked."""
    share: float = stage.params["gold_share"] + stage.params["repeat_share"]
    return round(share * 10_000)


class People(Unaudited):
    kind: ClassVar[str] = "people"
    stage_type: ClassVar[StageType] = StageType.PEOPLE
    Params: ClassVar[type[BaseModel]] = PeopleParams

    def freeze(self, stage: StageSpec, facts: StageFacts) -> StageSpec:
        if stage.base_model or stage.continue_from or stage.eval_data or stage.eval_fraction or stage.weights:
            raise InvalidInput(
                "people.not_learning",
                f"Stage {stage.name!r} asks people: base_model, continue_from, eval_data, eval_fraction and weights "
                "mean nothing to it.",
                next_step="Remove them.",
                stage=stage.name,
            )
        params = validate_params(PeopleParams, stage)
        assert isinstance(params, PeopleParams)
        if params.items == "auto" and facts.rows:
            params = params.model_copy(update={"items": min(facts.rows * _items_a_row(params), MOST_ITEMS)})
        return stage.model_copy(update={"params": params.model_dump(mode="json")})

    def makes(self, stage: StageSpec) -> Mapping[str, Content]:
        is_pairs = stage.params.get("kind", "compare") in ("compare", "rank")
        return {"votes": Content.VOTES, "rows": Content.PREFERENCES if is_pairs else Content.ANSWERS}

    def reads(self, stage: StageSpec) -> frozenset[Content]:
        return frozenset({Content.ANSWERS, Content.PREFERENCES})

    def learn_rounds(self, stage: StageSpec) -> int:
        return 1

    def phases(self, kind: RoundKind, artifacts: Mapping[str, str]) -> tuple[str, ...]:
        return ("split",) if kind is RoundKind.SETUP else ("ask", "join")

    def plan(self, given: PlanInput) -> Sequence[ShardPlan]:
        params = params_of(given.stage)
        if given.phase == "split":
            order = ItemsOrder(
                kind=params.kind,
                answers=params.answers,
                pairs_per_prompt=params.pairs_per_prompt,
                most_items=_most_items(params, given.stage.name),
                seed=given.job_id,
                makes_golds=params.kind == "compare" and params.gold_share > 0,
            )
            return [_single(order.canonical_json(), {"data": given.artifacts["data"]})]
        if given.phase == "join":
            votes = VotesOrder(kind=params.kind, consensus=params.consensus, job_id=given.job_id, scores=params.scores)
            return [_single(votes.canonical_json(), {"items": given.artifacts["items"]})]
        return [self._item(index, given, params) for index in _numbers(given, params)]

    def _item(self, index: int, given: PlanInput, params: PeopleParams) -> ShardPlan:
        return ShardPlan(
            index=index,
            order_json=AskOrder(item=index).canonical_json(),
            inputs={"items": given.artifacts["items"]},
            work_units=0,
            price_msat=0 if given.phase == "practice" else params.pay_sats * MSAT_PER_SAT,
            copies=params.overlap if given.phase == "ask" else 1,
        )

    def observe(self, seen: Observed) -> Observation:
        """Who beat whom how often: told after `join`."""
        wins = wins_among(seen.metrics[0]) if seen.phase == "join" else {}
        return Observation(measures=wins, numbers=wins)

    def check(self, phase: str, order_json: str, reported: Reported) -> Finding:
        return Finding(Why(code="check.for_people", sentence="This shard is for people; no worker hands it in."))

    def compute(self, phase: str, order_json: str, context: Context) -> Computed:
        match phase:
            case "split":
                return people_files.split(ItemsOrder.model_validate_json(order_json), context)
            case "join":
                return judgements.join(VotesOrder.model_validate_json(order_json), context)
            case _:
                raise InvalidInput("recipe.unknown_phase", f"Recipe 'people' computes no phase {phase!r}.")


def _items_a_row(params: PeopleParams) -> int:
    return params.pairs_per_prompt if params.kind == "compare" else 1


def _most_items(params: PeopleParams, stage: str) -> int:
    if params.items == "auto":
        raise InvalidInput(
            "people.items_unknown",
            f"Nobody can say yet how many items stage {stage!r} will ask people.",
            next_step="Say the most in params.items: the job is priced by it.",
            stage=stage,
            key="params.items",
        )
    return params.items


def _numbers(given: PlanInput, params: PeopleParams) -> range:
    """The items of a phase by their numbers; before they are counted, as many as are priced."""
    items = int(given.numbers.get("items", _most_items(params, given.stage.name)))
    golds = int(given.numbers.get("golds", 0))
    practice = min(PRACTICE_ITEMS, golds // 2)
    match given.phase:
        case "practice":
            return range(items, items + practice)
        case "gold":
            return range(items + practice, items + golds)
        case _:
            return range(items)


def _single(order_json: str, inputs: Mapping[str, str]) -> ShardPlan:
    return ShardPlan(index=0, order_json=order_json, inputs=inputs, work_units=0)
