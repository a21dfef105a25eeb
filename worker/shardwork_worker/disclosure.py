"""Disclosure: what of a reason leaves this machine. Its owner reads all of it; the coordinator shows it to strangers.

Owns taking away where things lie here. The agent sends every reason through it.
"""

from __future__ import annotations

import re
from pathlib import Path

from shardwork.why import Why

#: the coordinator keeps so much of a value; a process' last words say more than its first
KEPT_LETTERS = 200
#: absolute paths: in quotes, where they may hold spaces; else of at least two parts, at the start of a word, so that
#: `job/r1/learn` and `http://host/x` are none
_QUOTED = re.compile(r"(['\"])~?/[^'\"\n]*/([^'\"/\n]+)\1")
_PATH = re.compile(r"(?<![\w:/.~-])~?(?:/[^\s/:'\",()]+)+/([^\s/:'\",()]+)")


def disclosed(why: Why) -> Why:
    """The reason without the folders of this machine: of a path only its last part is left."""
    evidence = {name: _without_folders(text)[-KEPT_LETTERS:] for name, text in why.evidence.items()}
    return Why(
        code=why.code,
        sentence=_without_folders(why.sentence),
        evidence=evidence,
        next_step=_without_folders(why.next_step),
    )


def _without_folders(text: str) -> str:
    # a home with a space in its name would end the path too early
    text = _QUOTED.sub(r"\1…/\2\1", text.replace(str(Path.home()) + "/", "~/"))
    return _PATH.sub(r"…/\1", text)
