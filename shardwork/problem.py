"""Problem: one thing that is wrong in a file a person wrote, precise enough to mend it.

Job files (`shardwork.jobs.file`) and rows of data (`shardwork.dataset`) report all their problems at once, each with
file, line, key, a stable code, a sentence and the fix. Pure; the CLI prints them and `--json` carries them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    #: as the person named it
    file: str
    #: counted from 1; None when the problem belongs to the file as a whole
    line: int | None
    #: dotted path of the key, e.g. "stages.0.plan.rounds"; empty when there is none
    key: str
    #: stable, lower-case, dotted
    code: str
    #: one plain sentence that ends with a full stop
    sentence: str
    #: what to do about it
    fix: str

    def to_json(self) -> dict[str, object]:
        """The JSON keys of `data check` and `job validate`."""
        return {
            "file": self.file,
            "line": self.line,
            "key": self.key,
            "code": self.code,
            "sentence": self.sentence,
            "fix": self.fix,
        }

    def render(self) -> str:
        """One readable line: "job.yaml:7: rounds: … fix"."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        middle = f" {self.key}:" if self.key else ""
        return f"{place}:{middle} {self.sentence} {self.fix}".rstrip()


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a typing slip most likely meant, or None."""
    names = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), sorted(names), n=1, cutoff=0.6)
    return names[found[0]] if found else None


def nearest_file(name: str, known: Iterable[str]) -> str | None:
    """The known file name that a slip in `name` most likely meant. A like ending alone is no likeness."""
    names = sorted(known)
    stem = nearest(PurePath(name).stem, (PurePath(one).stem for one in names))
    same = [one for one in names if PurePath(one).stem == stem]
    return next(iter(difflib.get_close_matches(name, same, n=1, cutoff=0.0)), None)


def suggest(word: str, known: Iterable[str], *, what: str = "keys") -> str:
    """A fix sentence: the nearest known word, or all of them."""
    names = sorted(set(known))
    near = nearest(word, names)
    if near is not None:
        return f"Did you mean {near!r}?"
    return f"Known {what}: {', '.join(names)}."
