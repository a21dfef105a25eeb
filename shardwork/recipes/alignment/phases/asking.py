"""Asking: a pair of answers as tokens that a judge model reads, in both orders, and the two by which it answers.

The question's words are `question`'s. Called by `judging`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ....dataset.template import RenderRequest, RowRefused
from ....dataset.tokenise import RowTokenizer
from ....errors import InvalidInput
from ..orders import JudgePairsOrder
from .question import FIRST, SECOND, Pair, Question, asked_both, longest_first

#: a pair that is too long is tried with texts cut to a half this often
HALVINGS = 6


class Asker:
    """Pairs to tokens, for one judge."""

    def __init__(self, order: JudgePairsOrder, tokenizer: RowTokenizer) -> None:
        self._order = order
        self._tokenizer = tokenizer
        added = tokenizer.tokenizer.get_added_tokens_decoder()
        # runs of spaces are tokens of some models and no marks
        marks = [token.content for token in added.values() if token.special or set("<[|") & set(token.content)]
        self._special_ids = frozenset(number for number, token in added.items() if token.special)
        self._question = Question(order.rubric, order.principles, longest_first(marks), bytes.fromhex(order.seed))
        self._end, self.verdict_tokens = self._answering()

    def tokens(self, pairs: Sequence[Pair]) -> list[list[list[int]] | None]:
        """Two rows a pair, A first and B first; None where the pair can't be asked."""
        found: list[list[list[int]] | None] = [None] * len(pairs)
        left = list(range(len(pairs)))
        for halving in range(HALVINGS + 1):
            letters = self._order.most_letters >> halving
            texts = [text for at in left for text in asked_both(pairs[at], self._question, letters)]
            rows = self._encoded(texts)
            still: list[int] = []
            for number, at in enumerate(left):
                both = rows[2 * number], rows[2 * number + 1]
                if any(tokens is None for tokens in both):
                    continue  # its text makes special tokens, which no cutting takes away for sure
                if max(len(tokens or ()) for tokens in both) > self._order.max_length:
                    still.append(at)
                else:
                    found[at] = [list(tokens or ()) for tokens in both]
            left = still
            if not left:
                break
        return found

    def _encoded(self, texts: Sequence[str]) -> list[list[int] | None]:
        """As the judge reads them; None for one whose own text would be read as special tokens."""
        inside = self._tokenizer.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        whole = self._tokenizer.tokenizer.encode_batch_fast(
            self._rendered(texts, self._end), add_special_tokens=self._tokenizer.template is None
        )
        return [
            None if self._special_ids.intersection(bare.ids) else self._open(full.ids)
            for bare, full in zip(inside, whole, strict=True)
        ]

    def _open(self, ids: list[int]) -> list[int]:
        """Without an end token that the tokenizer adds by itself, which it does to plain text only."""
        adds = self._tokenizer.template is None and ids and ids[-1] == self._tokenizer.eos_token_id
        return ids[:-1] if adds else ids

    def _rendered(self, texts: Sequence[str], end: str) -> list[str]:
        """Up to where the judge speaks."""
        template = self._tokenizer.template
        if template is None:
            return [text + end for text in texts]
        requests = [RenderRequest(messages=[{"role": "user", "content": text}], renders=[(1, True)]) for text in texts]
        found: list[str] = []
        for answer in template.render(requests):
            if isinstance(answer, RowRefused):
                raise InvalidInput(
                    "template.refused",
                    f"The judge's chat template refuses a question: {answer.sentence.rstrip('.')}.",
                    next_step="Use a judge whose template takes a user's message, or set params.chat_template: chatml.",
                    key="params.chat_template",
                )
            found.append(answer[0])
        return found

    def _answering(self) -> tuple[str, tuple[int, int]]:
        """What a text without a template ends with, and the tokens that come next where the judge answers A or B."""
        adds = self._tokenizer.template is None
        for end, space in (("\nThe better answer:", " "), ("\nThe better answer:\n", "")) if adds else (("", ""),):
            (before,) = self._rendered(["?"], end)
            texts = [before, *(f"{before}{space}{letter}" for letter in (FIRST, SECOND))]
            plain_ids, *spoken_ids = (
                self._open(encoding.ids)
                for encoding in self._tokenizer.tokenizer.encode_batch_fast(texts, add_special_tokens=adds)
            )
            single = [ids[-1] for ids in spoken_ids if ids[:-1] == plain_ids]
            if len(single) == 2 and single[0] != single[1]:
                return end, (single[0], single[1])
        raise InvalidInput(
            "judge.no_verdict_tokens",
            f"The judge's tokenizer has no single tokens for the letters {FIRST} and {SECOND}.",
            next_step="Use another judge, or set params.chat_template: chatml.",
            key="base_model",
        )
