"""Fence: strangers' text inside a prompt that somebody else wrote, so that it stays text.

Owns what is taken out of such a text (control characters, direction marks, a model's special tokens, anything that
looks like a fence) and the marks around it. A mark is a hash of everything that it encloses and of the stage's seed, so
a text can't hold its own. What a model makes of an instruction inside is no question of this module. Pure.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

#: Cc control, Cf format (directions, joiners without width), Cs halves of characters, Co private, Cn unassigned
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
#: what our marks begin and end with, however long
_MARKS = re.compile(r"[<‹«＜⟨]{3,}|[>›»＞⟩]{3,}")
_CUT = " […]"


def plain(text: str, special: Sequence[str], most_letters: int, *, from_left: bool = False) -> str:
    """The text as it may stand inside a fence, of at most `most_letters`."""
    text = text[:most_letters] if not from_left else text[-most_letters:] if most_letters else ""
    text = "".join(letter for letter in text.replace("\r\n", "\n") if _is_shown(letter))
    text = _MARKS.sub(lambda found: " ".join(found[0]), text)
    return _without(text, special)


def cut(text: str, most_letters: int, *, from_left: bool = False) -> str:
    """A mark where something is missing, which a reader should know."""
    if len(text) <= most_letters:
        return ""
    return _CUT.strip() + " " if from_left else _CUT


def _is_shown(letter: str) -> bool:
    return letter in "\n\t" or unicodedata.category(letter) not in _UNSEEN


def _without(text: str, special: Sequence[str]) -> str:
    """Each special token is broken by a space. Breaking one can't make another: every text only grows by spaces."""
    for token in special:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def mark(seed: bytes, texts: Iterable[str]) -> str:
    """Of one prompt's fences: 8 hex digits of a hash of the seed and all the texts that it keeps apart."""
    digest = hashlib.blake2b(seed[:64], digest_size=4, person=b"shardwork fence")
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def fenced(name: str, text: str, token: str) -> str:
    """The text between two marks of this name. `token`: from `mark`, of every text of the prompt."""
    return f"<<<{name} {token}\n{text.replace(token, '')}\n{name} {token}>>>"
