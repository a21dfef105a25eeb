"""Judging: pairs of answers put to an outside judge, each in both orders, within a cap that no call can pass.

Both calls of a pair are counted at their most before the first is made. The question is the one that judges on workers
are asked (`recipes.alignment.phases.question`). Votes are written from the journal, so that a run that was stopped or
killed goes on where it was. Called by `shardwork feedback judge`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...dataset.row import LEARNS_FROM, Format
from ...dataset.rows import read_rows
from ...dataset.source import read_lines, source_files
from ...errors import InvalidInput, LimitExceeded, ShardworkError
from ...ids import derive_seed
from ...problem import Problem
from ...recipes.alignment.phases.appeal import is_appealing
from ...recipes.alignment.phases.drawing import drawn
from ...recipes.alignment.phases.items import item_row
from ...recipes.alignment.phases.question import Pair, Question, asked_both, longest_first
from .endpoint import CONNECT_S, TIMEOUT_S, Endpoint, Lost, ask
from .journal import Call, Cap, Cost, Journal
from .sources import ITEMS, VOTES

if TYPE_CHECKING:
    import httpx

#: what chat models take for the begin and end of messages: an outside judge's tokenizer is not known
CHAT_MARKS = longest_first(
    (
        *("<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|endoftext|>", "<|begin_of_text|>", "<|end_of_text|>"),
        *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|system|>", "<|user|>"),
        *("<|assistant|>", "<|end|>", "<|channel|>", "<|message|>", "<|start|>", "<|return|>", "<s>", "</s>"),
        *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>"),
    )
)
#: tokens around a message that a server may add
AROUND = 64
#: how long calls that are out are waited for after Ctrl-C
LAST_CALLS_S = 30.0
ORDERS = ("ab", "ba")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be judged, and how."""

    files: Sequence[Path]
    folder: Path
    cap: Cap
    rubric: str = ""
    pairs_per_prompt: int = 1
    seed: int = 0
    label: str = "judge"
    parallel: int = 4
    most_letters: int = 8000


@dataclass(slots=True)
class Judgement:
    """How it went: counted over all runs into this folder."""

    pairs: int = 0
    judged: int = 0
    flips: int = 0
    #: answered with neither letter
    unreadable: int = 0
    #: calls that may have been paid for and gave nothing
    lost: int = 0
    #: pairs that the cap left out
    left: int = 0
    #: pairs that were not asked, because an answer speaks to the judge
    appeals: int = 0
    calls: int = 0
    tokens: int = 0
    nanos: int = 0
    problem: ShardworkError | None = field(default=None, repr=False)


def pairs_of(asked: Asked) -> list[Pair]:
    """Raises InvalidInput "data.*", "judge.no_pairs"."""
    seed, found = derive_seed("feedback judge", asked.seed), dict[str, Pair]()
    for row in read_rows(read_lines(source_files(list(asked.files), "judge"))):
        if isinstance(row, Problem):
            raise InvalidInput(
                row.code, row.sentence, next_step=row.fix, file=row.file, line=row.line or "", key=row.key
            )
        if row.format not in LEARNS_FROM.get("judge", frozenset({Format.ANSWERS, Format.PREFERENCE})):
            raise InvalidInput(
                "judge.no_answers",
                f"The rows are {row.shape}: there is nothing to compare.",
                next_step='Give rows as {"prompt", "answers": [{"model", "text"}, ...]}.',
                file=row.file,
                line=row.line,
            )
        found |= {pair.item: pair for pair in drawn(row, seed, asked.pairs_per_prompt)[0]}
    if not found:
        raise InvalidInput(
            "judge.no_pairs",
            "The data holds no pair of different answers.",
            next_step="Give rows with at least two different answers.",
        )
    return list(found.values())


async def judge(asked: Asked, endpoint: Endpoint) -> Judgement:
    """Asks what was not asked yet. What is in the way of going on is `problem`: what was paid for is written first."""
    import httpx

    endpoint.check()
    every = pairs_of(asked)
    pairs = [pair for pair in every if not is_appealing(pair)]
    question = Question(asked.rubric, (), CHAT_MARKS, derive_seed("feedback judge", asked.seed))
    with Journal(asked.folder, asked.cap, _about(asked, endpoint, pairs)) as journal:
        timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)
        async with httpx.AsyncClient(timeout=timeout, follow_redirects=False) as client:
            work = _Work(asked, endpoint, question, journal, client, iter(pairs))
            try:
                await work.run()
            finally:
                _write(asked, journal, pairs)
        made = _counted(journal, pairs, work)
        made.appeals = len(every) - len(pairs)
        return made


@dataclass(slots=True)
class _Work:
    asked: Asked
    endpoint: Endpoint
    question: Question
    journal: Journal
    client: httpx.AsyncClient
    pairs: Iterator[Pair]
    problem: ShardworkError | None = None
    stopped: bool = False

    async def run(self) -> None:
        tasks = [asyncio.create_task(self._some()) for _ in range(self.asked.parallel)]
        try:
            await asyncio.wait(tasks)  # which, cancelled, leaves them as they are
        except asyncio.CancelledError:
            # what is out is paid for: its answers are worth waiting for
            self.stopped = True
            await asyncio.wait(tasks, timeout=LAST_CALLS_S)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            task.result()

    async def _some(self) -> None:
        for pair in self.pairs:
            texts = asked_both(pair, self.question, self.asked.most_letters)
            calls = {(pair.item, order): text for order, text in zip(ORDERS, texts, strict=True)}
            wanted = {call: text for call, text in calls.items() if self._is_open(call)}
            most = {call: self._most(text) for call, text in wanted.items()}
            if any(call in self.journal.lost for call in calls) or not self.journal.may(sum(most.values(), Cost())):
                continue  # half a pair is worth nothing; and a shorter one may still fit
            for call in wanted:
                self.journal.reserve(call, most[call])
            for call, text in wanted.items():
                if self.stopped:
                    self.journal.release(call)
                else:
                    await self._one(call, text)
            if self.stopped:
                return

    async def _one(self, call: Call, text: str) -> None:
        most, begun = self.journal.open[call], time.monotonic()
        self.journal.asked(call)
        try:
            said = await ask(self.client, self.endpoint, text)
        except Lost:
            self.journal.lose(call)
        except ShardworkError as error:
            self.journal.not_made(call)
            self.problem, self.stopped = self.problem or error, True
        else:
            cost = most
            if said.tokens_in is not None and said.tokens_out is not None:
                nanos = self.asked.cap.nanos_of(said.tokens_in, said.tokens_out)
                cost = Cost(said.tokens_in + said.tokens_out, nanos)
            self.journal.answered(call, cost, said.first, round((time.monotonic() - begun) * 1000))
            if cost.tokens > most.tokens or cost.nanos > most.nanos:
                self.problem, self.stopped = self.problem or _more_than_counted(cost, most), True

    def _is_open(self, call: Call) -> bool:
        return call not in self.journal.done and call not in self.journal.lost

    def _most(self, text: str) -> Cost:
        """No tokenizer makes more tokens of a text than it has bytes."""
        tokens = len(text.encode("utf-8", "replace")) + AROUND
        out = self.endpoint.answer_tokens
        return Cost(tokens + out, self.asked.cap.nanos_of(tokens, out))


def _more_than_counted(cost: Cost, most: Cost) -> LimitExceeded:
    """Going on would pass the cap by as much with each call."""
    return LimitExceeded(
        "feedback.costs_more",
        f"The endpoint counts {cost.tokens:,} tokens for a call that can take {most.tokens:,} at most.",
        next_step="Look at your bill before you run it again, or use another endpoint or model.",
    )


def _about(asked: Asked, endpoint: Endpoint, pairs: Sequence[Pair]) -> str:
    """What must be the same for the answers of one run to be those of the next. The key is no part of it."""
    told = [endpoint.url, endpoint.model, asked.rubric, asked.seed, asked.most_letters, [one.item for one in pairs]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _counted(journal: Journal, pairs: Sequence[Pair], work: _Work) -> Judgement:
    made = Judgement(pairs=len(pairs), problem=work.problem, lost=len(journal.lost))
    for pair in pairs:
        calls = [(pair.item, order) for order in ORDERS]
        winners = [_winner(journal, call) for call in calls if call in journal.done]
        made.unreadable += None in winners
        if len(winners) == len(ORDERS) and None not in winners:
            made.judged += 1
            made.flips += winners[0] != winners[1]
        made.left += len(winners) < len(ORDERS) and not any(call in journal.lost for call in calls)
    made.calls, made.tokens, made.nanos = len(journal.done), journal.spent.tokens, journal.spent.nanos
    return made


def _winner(journal: Journal, call: Call) -> str | None:
    first, _ = journal.done[call]
    if first is None:
        return None
    return "tie" if first == 0.5 else "a" if (first > 0.5) == (call[1] == "ab") else "b"


def _write(asked: Asked, journal: Journal, pairs: Sequence[Pair]) -> None:
    votes = [row for pair in pairs for row in _votes(asked, journal, pair)]
    items = [item_row(one.item, one.prompt_id, one.prompt, _sides(one)) for one in pairs]
    for name, rows in ((VOTES, votes), (ITEMS, items)):
        fresh = asked.folder / f".{name}.new"
        fresh.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        fresh.replace(asked.folder / name)


def _sides(pair: Pair) -> list[tuple[str, str]]:
    return [(pair.a.model or "answer 1", pair.a.text), (pair.b.model or "answer 2", pair.b.text)]


def _votes(asked: Asked, journal: Journal, pair: Pair) -> Iterator[dict[str, Any]]:
    """Both orders' votes of a pair that was answered with a letter each time; where they contradict each other, both
    say so."""
    (model_a, _), (model_b, _) = _sides(pair)
    calls = [(pair.item, order) for order in ORDERS]
    winners = [_winner(journal, call) if call in journal.done else None for call in calls]
    if None in winners:
        return
    flips = {"reasons": ["flip"]} if winners[0] != winners[1] else {}
    for call, winner in zip(calls, winners, strict=True):
        first, ms = journal.done[call]
        assert first is not None
        yield {
            "prompt_id": pair.prompt_id,
            "item": pair.item,
            "model_a": model_a,
            "model_b": model_b,
            "winner": winner,
            "order": call[1],
            "annotator": asked.label,
            "ms": ms,
            "job": "",
            "source": "judge",
            "confidence": round(max(first, 1 - first), 6),
            **flips,
        }
