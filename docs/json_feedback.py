"""Shapes of what `shardwork feedback … --json` prints; part of `json_shapes`."""

from __future__ import annotations

from typing import Literal

from json_jobs import Output, Problem, Shape, Why


class FeedbackShare(Shape):
    value: float
    low: float
    high: float
    of: float


class ModelRating(Shape):
    model: str
    strength: float
    elo: float
    low: float
    high: float
    votes: int
    won: float


class ModelWinRate(Shape):
    model: str
    against: str
    wins: int
    losses: int
    ties: int
    rate: float
    low: float
    high: float


class FeedbackRatings(Shape):
    votes: int
    ratings: list[ModelRating]
    win_rates: list[ModelWinRate]


class FeedbackAlpha(Shape):
    value: float | None
    units: int
    values: int


class Calibrated(Shape):
    confidence: float
    agrees: float
    pairs: int


class FeedbackAgreement(Shape):
    judge_with_people: FeedbackShare | None
    people_alpha: FeedbackAlpha | None
    flips: FeedbackShare | None
    calibration: list[Calibrated]


class LengthSlope(Shape):
    value: float
    low: float
    high: float
    votes: int


class FeedbackBias(Shape):
    first: FeedbackShare
    longer: FeedbackShare
    length: LengthSlope


class FeedbackBiases(Shape):
    people: FeedbackBias | None
    judge: FeedbackBias | None


class FeedbackSide(Shape):
    name: str
    pairs: int
    preferences: int
    votes: int
    cost_msat: int | None
    msat_per_pair: float | None
    #: the stages that asked, from beginning to end
    took_ms: int | None
    ms_per_vote: float | None
    quality: FeedbackShare | None


class FeedbackAnnotator(Shape):
    annotator: str
    accuracy: FeedbackShare
    votes: int


class FeedbackWeights(Shape):
    people: float
    judge: float


class FeedbackCosts(Shape):
    people_msat: int
    judge_msat: int
    people_ms: int
    judge_ms: int


class FeedbackReport(FeedbackRatings):
    unknown: int
    people: int
    pairs: int
    preferences: int
    rule: str
    weights: FeedbackWeights
    conflict: str
    agreement: FeedbackAgreement
    bias: FeedbackBiases
    #: of a job's votes: what its stages paid for them
    costs: FeedbackCosts | None
    sides: list[FeedbackSide]
    annotators: list[FeedbackAnnotator]


class FeedbackFile(Shape):
    path: str
    rows: int
    votes: int
    preferences: int


class FeedbackJudged(Shape):
    path: str
    pairs: int
    judged: int
    flips: int
    unreadable: int
    lost: int
    left: int
    appeals: int
    calls: int
    tokens: int
    usd: float


class PersonFigures(Shape):
    annotator: str
    name: str
    state: str
    standing: str
    answers: int
    hidden: list[int]
    repeated: list[int]
    too_fast: int
    first_and_second: list[int]
    paid_msat: int
    stopped_by: str
    why: Why | None
    joined_unix_ms: int
    last_unix_ms: int


class ShownFirst(Shape):
    choices: int
    shown_first: float | None
    shown_first_interval: list[float] | None
    longer: float | None
    longer_interval: list[float] | None


class PeopleFigures(Shape):
    kind: str
    items: int
    items_done: int
    overlap: int
    hidden: int
    votes: dict[str, int]
    votes_left: int
    seconds_left: int | None
    pay_msat: int
    paid_msat: int
    held_msat: int
    annotators: dict[str, int]
    here: int
    agreement_alpha: float | None
    bias: ShownFirst
    people: list[PersonFigures]


class PeopleStage(Shape):
    stage: str
    state: str
    figures: PeopleFigures | None


class FeedbackProgress(Shape):
    id: str
    stages: list[PeopleStage]


class SampleText(Shape):
    """An answer or a prompt, cut where it is long."""

    label: str
    mark: Literal["chosen", "rejected"] | None
    text: str
    #: letters that are left out
    more: int
    #: as the row says; None: it does not
    tokens: int | None
    logprob: float | None
    ended: bool | None


class SampleRow(Shape):
    prompt_id: str | None
    prompt: SampleText
    texts: list[SampleText]
    #: answers that are left out
    more: int
    confidence: float | None
    votes: int | None


class SamplesOf(Shape):
    output: str
    beside: str | None
    #: bytes of the file: where this page begins, where the next one does (None: nothing follows), all of it
    at: int
    next_at: int | None
    file_bytes: int
    samples: list[SampleRow]
    #: lines that are no rows
    problems: list[Problem]
    #: the other output holds more than one page reads, and not every prompt was found in it
    beside_unread: bool


class Samples(Shape):
    id: str
    #: those that can be read row by row
    outputs: list[Output]
    #: None: no output was named
    page: SamplesOf | None


class Sitting(Shape):
    job: str
    stage: str
    votes: int
    skipped: int
    undone: int
    state: str
    paid_msat: int
    held_msat: int
