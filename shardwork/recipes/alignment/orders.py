"""Orders of alignment: answers drawn from a policy, scored, judged, asked of people, and checked by another worker.

As in `recipes.orders`: pure data, written by the planner, read by `compute`, canonical JSON in the signed lease.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from ..order import Count, Length, Order, Rows, Size, Threads, added
from ..orders import Precision, Tuning

Seed = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
#: rows whose numbers an audit or a verdict names one by one among its metrics
MOST_ROWS = 512


class Sampling(Order):
    """How answers are drawn. Token t of row i is where the cumulated probability passes the row's draw t
    (`shardwork.recipes.alignment.draws`), so that a seed fixes an answer and a forward pass proves it."""

    #: 0: always the likeliest token
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0
    #: tokens are drawn from the smallest set that holds this much probability (Holtzman et al., arXiv 1904.09751)
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Annotated[int, Field(ge=1, le=2**16)] = 128


class GenerateOrder(Order):
    """phase "map" of generate, "rollout" of ppo and grpo: inputs base, checkpoint?, prompts -> output answers.

    Answers prompts [first_prompt, first_prompt + prompts) modulo their number, `answers` of each, one after the other:
    row i answers prompt first_prompt + i // answers. Metrics: rows, tokens, ended (rows that ended by themselves), and
    for each row "sum.<i>", the summed log-probability of its tokens under logits / temperature (1 where that is 0), and
    "peak.<i>", the mean of the largest of these, which stands in no file: who checks them has to run the model.
    """

    #: what the checkpoint's parameters are; None: base is the model as it lies
    tuning: Tuning | None
    first_prompt: Count
    prompts: Rows
    answers: Annotated[int, Field(ge=1, le=256)]
    sampling: Sampling
    #: longest prompt, tokens; longer ones were cut from the left when they were prepared
    max_length: Length
    #: rows on the device at once
    batch_size: Rows
    precision: Precision = Precision.FP32
    threads: Threads = 1

    @property
    def rows(self) -> int:
        return self.prompts * self.answers


class ScoreOrder(Order):
    """phase "score": inputs base (a reward model), prompts, answers -> output scores: one number a row of `of`.

    Metrics: "score.<i>" for each row.
    """

    of: GenerateOrder
    max_length: Length
    batch_size: Rows
    precision: Precision = Precision.FP32
    threads: Threads = 1


class JudgeOrder(Order):
    """phase "map" of judge: inputs base (the judge), pairs -> output verdicts.

    Pairs [0, pairs) of the input, each asked in both orders. Metrics: "first.<i>" and "second.<i>": the probability
    that answer A is better, with A shown first and with B shown first; "tokens".
    """

    pairs: Rows
    max_length: Length
    batch_size: Rows
    precision: Precision = Precision.FP32
    threads: Threads = 1


class AuditOrder(Order):
    """phase "audit": another worker does a sample of a shard's rows again, by a forward pass -> metrics only.

    Inputs: those of the audited shard, and the answers of GenerateOrder; scores and verdicts stay hidden, as a number
    that an auditor can read is one that it need not compute. Metrics, named for each of `rows`: what the audited shard
    names, and of GenerateOrder "drawn.<i>" (share of the row's tokens that its draws give, or lie beside by no more
    than machines differ), "told.<i>" (share of its log-probabilities that the file tells right), and "tokens" and
    "ended" of the whole file. "unreadable": 1 alone: the answers can't be read.
    """

    of: GenerateOrder | ScoreOrder | JudgeOrder
    #: of the audited shard, hex
    seed: Seed
    rows: Annotated[tuple[Count, ...], Field(min_length=1, max_length=MOST_ROWS)]


class PromptsOrder(Order):
    """phase "split" of generate (executor): inputs data, base -> outputs part-0 … part-(n-1): prompts as tokens.

    Metrics: parts (n), and "prompts.<i>" of each part.
    """

    #: at least so many, fewer where there are fewer prompts, and more where a part would have more than most_rows
    parts: Size
    max_length: Length
    chat_template: str = "model"
    most_rows: Rows = MOST_ROWS


class JoinAnswersOrder(Order):
    """phase "join" of generate (executor): inputs base, part-0 …, output-0 … -> output rows/rows.jsonl.

    output-<m * parts + p> holds model m's answers to part p.
    """

    models: tuple[str, ...]
    parts: Size
    #: what each part was answered by, but for the number of its prompts
    of: GenerateOrder


class RewardKind(StrEnum):
    """Rewards that code can verify, each 0 to 1 (`rewards`)."""

    #: the row's "answer", as it stands
    EXACT = "exact"
    #: the last number of the answer is the row's "answer", within a tolerance
    NUMERIC = "numeric"
    #: a pattern matches
    REGEX = "regex"
    #: the answer is JSON of a shape
    JSON_SCHEMA = "json_schema"
    #: as long as it should be
    LENGTH = "length"
    #: its parts stand between the tags that were asked for
    FORMAT = "format"


class GradeOrder(Order):
    """phase "grade" (executor): inputs base, prompts, answers-0 … -> outputs scores-0 …: verifiable rewards."""

    rewards: Annotated[tuple[tuple[RewardKind, float], ...], Field(min_length=1)]
    #: the order of answers-<i>
    of: tuple[GenerateOrder, ...]
    #: number of the one whose prompts are those of input `eval`, held out; None: all answer `prompts`
    trial: Count | None = None
    #: the rollouts that are there, by number: answers-<i>, scores-<i>
    numbers: tuple[Count, ...]
    #: JSON of what the rewards need beside the row
    settings: str = added("")


class JudgePairsOrder(Order):
    """phase "split" of judge (executor): inputs data, base (the judge) -> outputs part-0 … part-(n-1): pairs as tokens.

    Metrics: parts (n), "pairs.<i>" of each part, pairs, tokens, same (left out for equal answers), unfit (too long),
    appeals (an answer speaks to the judge).
    """

    parts: Size
    #: tokens of what the judge reads of one pair in one order
    max_length: Length
    #: draws pairs, and which answer is called A
    seed: Seed
    #: of one row's answers, at most
    pairs_per_prompt: Size = 1
    #: what "better" means; empty: our own words
    rubric: Annotated[str, Field(max_length=8000)] = ""
    principles: Annotated[tuple[Annotated[str, Field(max_length=2000)], ...], Field(max_length=50)] = ()
    #: of a prompt and of each answer; a pair that is still too long is cut further
    most_letters: Annotated[int, Field(ge=16, le=200_000)] = 8000
    chat_template: str = "model"
    #: pairs of which an answer speaks to the judge aren't asked
    leave_out_appeals: bool = added(False)
    most_pairs: Rows = MOST_ROWS


class JudgeVerdictsOrder(Order):
    """phase "join" of judge (executor): inputs part-0 …, output-0 … -> outputs votes/votes.jsonl,
    rows/preferences.jsonl."""

    parts: Size
    #: what the judge is called in votes
    judge: str
    job_id: str
    #: verdicts less what length alone explains, by logistic regression (Dubois et al., arXiv 2404.04475)
    length_controlled: bool = False
    #: preference rows are at least so sure
    least_confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.5
