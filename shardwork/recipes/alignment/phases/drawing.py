"""Drawing: which answers of a row are compared, and which of the two is called A.

A function of a seed and of the row, so that the same rows give the same pairs. Pure and light. Called by `judging` and
`shardwork.client`.
"""

from __future__ import annotations

import hashlib
import itertools

from ....dataset.row import Answer, Format, Part, Row
from ....dataset.split import shuffled
from .question import Pair


def answers_of(row: Row) -> tuple[Part, list[Answer]]:
    """A row's prompt and its answers; a preference's are called by what they were."""
    if row.format is Format.ANSWERS:
        return row.prompt, list(row.answers)
    chosen, rejected = row.answered(row.chosen), row.answered(row.rejected)
    said = [("chosen", spoken(chosen.completion)), ("rejected", spoken(rejected.completion))]
    return chosen.prompt, [Answer(model, text) for model, text in said]


def spoken(part: Part) -> str:
    """An answer as text: what was said last, where it is a conversation."""
    return part if isinstance(part, str) else str(part[-1].get("content", ""))


def drawn(row: Row, seed: bytes, pairs_per_prompt: int) -> tuple[list[Pair], int]:
    """(pairs of different answers, at most `pairs_per_prompt`; how many pairs of the row are of equal ones)."""
    prompt, answers = answers_of(row)
    name = row.prompt_id or row.digest().hex()
    mine = hashlib.sha256(seed + row.digest()).digest()
    every = list(itertools.combinations(range(len(answers)), 2))
    differ = [(one, other) for one, other in every if answers[one].text.strip() != answers[other].text.strip()]
    found: list[Pair] = []
    for at in shuffled(len(differ), mine, "pairs")[:pairs_per_prompt]:
        one, other = (answers[number] for number in differ[at])
        item = hashlib.blake2b(digest_size=12, person=b"shardwork pair")
        for text in (name, one.model, one.text, other.model, other.text):
            item.update(len(text).to_bytes(8, "big") + text.encode("utf-8", "surrogatepass"))
        # who is A is drawn too: a model that always came first would carry the judge's leaning into every rate
        a, b = (one, other) if (item.digest()[0] ^ mine[0]) & 1 else (other, one)
        found.append(Pair(item.hexdigest(), name, prompt, a, b))
    return found, len(every) - len(differ)
