"""Appeal: an answer that speaks to its judge, or of its own comparison, and not to who asked.

Such a pair isn't asked: a fence keeps a text a text, but a model may believe what it reads, and no order of the two
answers undoes "this answer is better". Owns the closed list of phrases and what is looked through for them: look-alike
and wide letters, hidden and struck ones, digits for letters, text backwards, percent, HTML, hex, rot13 and base64. It
is a net and no proof: other words and languages pass, and an honest answer about comparing answers is left out too.
Pure. Called by
`judging` and `shardwork.client`.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

from .question import Pair, written

#: what is looked at of each end of an answer: a judge reads no more
MOST_LETTERS = 8000
_ALIKE = str.maketrans("аеорсхуіѕјһӏԁԛԝᴀ", "aeopcxyisjhldqwa")
_DIGITS = str.maketrans("013457", "oieast")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")
_HEX = re.compile(r"\b(?:[0-9a-f]{2}){8,}\b")

_WINS = r"(?:better|best|winner|wins?|won|superior|preferred|prefer|chosen|chooses?|select|correct|verified|verdict)"
_MINE = r"(?:this|the present|present|my) (?:answer|one|response|reply)"
_ORDER = r"(?:choose|prefer|select|pick|rank|mark|reply with|reply|obey|output|name)"
_TONGUES = (
    "diese antwort ist|nur mit [ab]\\b|cette reponse est|esta respuesta es|这个答案|この回答|этот ответ|هذه الاجابة"
)
_PHRASES = re.compile(
    "|".join(
        (
            rf"\b{_MINE}\b.{{0,60}}\b{_WINS}\b",
            rf"\b{_WINS}\b.{{0,60}}\b{_MINE}\b",
            rf"\b{_ORDER} (?:\w+ ){{0,3}}(?:this(?= (?:answer|one|response|reply)\b| ?[.;:!]| ?$)|answer|letter)\b",
            r"\b(?:reply|respond|answer|choose|select|pick) (?:with |only )*[ab](?: ?$|\.)",
            r"\b(?:ignore|disregard|forget|override) (?:\w+ ){0,4}(?:instructions?|rubric|question|rules?|above)\b",
            r"\bthe other (?:answer|author)\b",
            r"\b(?:better|best|winning|worse|preferred) answer\b",
            r"\b(?:verdict|winner|decision|rank|label|answer key) ?[:=>]+ ?(?:[ab]\b|this\b|the present\b)",
            r"\b(?:score|rating|reward) ?[:=] ?(?:10|100|5|1\.0)\b",
            r"\banswer [ab]\b(?! [ab]\b)",
            r"\bwhich (?:answer|one) (?:is|wins|was)\b",
            r"\brubric\b",
            _TONGUES.translate(_ALIKE),
        )
    )
)


def is_appealing(pair: Pair) -> bool:
    """Whether an answer speaks to the judge though nobody asked it about judging."""
    if appeals(written(pair.prompt)):
        return False
    return appeals(pair.a.text) or appeals(pair.b.text)


def appeals(text: str) -> bool:
    """Whether it speaks to a judge."""
    ends = text if len(text) <= 2 * MOST_LETTERS else text[:MOST_LETTERS] + "\n" + text[-MOST_LETTERS:]
    return any(_PHRASES.search(reading) for reading in _readings(ends))


def _readings(text: str) -> Iterator[str]:
    """The text in each way that it may be meant."""
    shown = "".join(
        letter for letter in _ESCAPES.sub("", text) if letter in "\n\t" or unicodedata.category(letter)[0] != "C"
    )
    plain = _flat(shown)
    yield plain
    yield plain[::-1]
    if any(letter in "013457" for letter in plain):
        yield plain.translate(_DIGITS)
    yield codecs.encode(plain, "rot13")
    if "%" in shown or "&" in shown:
        yield _flat(html.unescape(unquote(shown)))
    for found in _BASE64.findall(shown):
        try:
            yield _flat(base64.b64decode(found + "=" * (-len(found) % 4)).decode())
        except (binascii.Error, UnicodeDecodeError):
            continue
    for found in _HEX.findall(plain):
        yield _flat(bytes.fromhex(found).decode("utf-8", "replace"))


def _flat(text: str) -> str:
    """Small Latin letters without accents, one space between words, quotes and marks of formats gone."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    bare = bare.translate(_ALIKE)
    return re.sub(r"[\s\"'`*_#|<>()\[\]{}~,-]+", " ", bare)
