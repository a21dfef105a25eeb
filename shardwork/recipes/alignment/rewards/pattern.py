"""Pattern: regular expressions that take linear time, whatever the pattern and the text.

Owns a subset of Python's syntax without look-around and back references, run on sets of states (Thompson, CACM 11(6),
1968) that are kept as they come up, so nothing ever goes back. Steps are counted, and a pattern that needs too many
ends the phase: what an answer and a requester write must not hold up a coordinator. Pure. Called by `verifiable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ....errors import InvalidInput

MOST_LETTERS, MOST_STATES, MOST_REPEATS = 1000, 800, 200
#: groups in each other
MOST_DEPTH = 50
#: of a text; a longer one matches nothing
MOST_TEXT = 16_384
#: visits of states, over all texts of a phase: some seconds
MOST_STEPS = 20_000_000
#: kept moves from one set of states to the next
MOST_KEPT = 20_000

Test = Callable[[str], bool]
_CLASSES: dict[str, Test] = {
    "d": lambda letter: letter.isdecimal(),
    "w": lambda letter: letter.isalnum() or letter == "_",
    "s": lambda letter: letter.isspace(),
}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_SPECIAL = frozenset("\\.[]{}()*+?|^$/-#&~ \"'`=!<>:;,@%_")


def refuse(sentence: str) -> InvalidInput:
    fix = "Use letters, . [] ^ $ | () (?:) and * + ? {m,n}; classes are \\d \\w \\s and their capitals."
    return InvalidInput("rewards.bad_pattern", f"The pattern {sentence}.", next_step=fix, key="params.reward_settings")


@dataclass(slots=True)
class Pattern:
    """A compiled pattern. Raises InvalidInput "rewards.bad_pattern" when made, "rewards.slow_pattern" when used."""

    source: str
    ignore_case: bool = False
    #: of each state: what letter it takes and where that leads
    _takes: list[tuple[Test, int] | None] = field(default_factory=list[tuple[Test, int] | None])
    _free: list[list[int]] = field(default_factory=list[list[int]])
    #: ways that are open only at the beginning, and only at the end
    _at_begin: dict[int, int] = field(default_factory=dict[int, int])
    _at_end: dict[int, int] = field(default_factory=dict[int, int])
    _kept: dict[tuple[frozenset[int], frozenset[int], str], frozenset[int]] = field(
        default_factory=dict[tuple[frozenset[int], frozenset[int], str], frozenset[int]]
    )
    _steps: int = 0
    _first: int = 0
    _last: int = 0

    def __post_init__(self) -> None:
        if len(self.source) > MOST_LETTERS:
            raise refuse(f"has more than {MOST_LETTERS} letters")
        self._first, self._last = _Parser(self).whole()

    def matches(self, text: str, *, whole: bool = False) -> bool:
        """Whether the text holds a match, or is one."""
        if len(text) > MOST_TEXT:
            return False
        again = frozenset[int]() if whole else self._closed({self._first})
        now = self._closed({self._first}, begin=True)
        for letter in text:
            if not whole and self._last in now:
                return True
            now = self._moved(now, again, letter)
        return self._last in self._closed(now, begin=not text, end=True)

    def _moved(self, now: frozenset[int], again: frozenset[int], letter: str) -> frozenset[int]:
        """The states after this letter, with those that a match may begin in at every place."""
        kept = self._kept.get((now, again, letter))
        if kept is not None:
            return kept
        taken: set[int] = set()
        for state in now:
            take = self._takes[state]
            if take is not None and take[0](letter):
                taken.add(take[1])
        self._count(len(now))
        found = self._closed(taken) | again
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[now, again, letter] = found
        return found

    def _closed(self, states: set[int] | frozenset[int], *, begin: bool = False, end: bool = False) -> frozenset[int]:
        """With every state that is reached without a letter."""
        found, open_ = set(states), list(states)
        while open_:
            state = open_.pop()
            ways = list(self._free[state])
            ways += [self._at_begin[state]] if begin and state in self._at_begin else []
            ways += [self._at_end[state]] if end and state in self._at_end else []
            fresh = [way for way in ways if way not in found]
            found.update(fresh)
            open_ += fresh
        self._count(len(found))
        return frozenset(found)

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MOST_STEPS:
            raise InvalidInput(
                "rewards.slow_pattern",
                "The pattern takes too many steps on these answers.",
                next_step="Use fewer and narrower repetitions in params.reward_settings.",
                key="params.reward_settings",
            )

    # ---- building ------------------------------------------------------------------------------------------------

    def state(self) -> int:
        if len(self._free) >= MOST_STATES:
            raise refuse("is too large: its repetitions are written out")
        self._takes.append(None)
        self._free.append([])
        return len(self._free) - 1

    def take(self, state: int, test: Test, to: int) -> None:
        self._takes[state] = (test, to)

    def link(self, state: int, to: int) -> None:
        self._free[state].append(to)

    def guard(self, state: int, to: int, *, end: bool) -> None:
        (self._at_end if end else self._at_begin)[state] = to


#: builds one part of a pattern anew each time, so that it can be repeated: its first and last state
Part = Callable[[], tuple[int, int]]


@dataclass(slots=True)
class _Parser:
    """Recursive descent over the source, each part a function that builds its states."""

    into: Pattern
    at: int = 0
    depth: int = 0

    def whole(self) -> tuple[int, int]:
        part = self._either()
        if self.at < len(self.into.source):
            raise refuse(f"closes a group that is not open, at letter {self.at + 1}")
        return part()

    def _next(self) -> str:
        return self.into.source[self.at : self.at + 1]

    def _eat(self, letter: str) -> bool:
        if letter and self.into.source.startswith(letter, self.at):
            self.at += len(letter)
            return True
        return False

    def _either(self) -> Part:
        parts = [self._sequence()]
        while self._eat("|"):
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else lambda: self._build_either(parts)

    def _build_either(self, parts: list[Part]) -> tuple[int, int]:
        first, last = self.into.state(), self.into.state()
        for part in parts:
            begin, end = part()
            self.into.link(first, begin)
            self.into.link(end, last)
        return first, last

    def _sequence(self) -> Part:
        parts: list[Part] = []
        while self._next() not in ("", "|", ")"):
            parts.append(self._repeated(self._atom()))
        return lambda: self._build_sequence(parts)

    def _build_sequence(self, parts: list[Part]) -> tuple[int, int]:
        first = last = self.into.state()
        for part in parts:
            begin, end = part()
            self.into.link(last, begin)
            last = end
        return first, last

    def _repeated(self, part: Part) -> Part:
        least, most = self._times()
        if (least, most) == (1, 1):
            return part
        if self._next() in ("*", "+") or (self._next() == "{" and least != most):
            raise refuse(f"repeats a repetition, at letter {self.at + 1}")
        self._eat("?")  # whether it is greedy makes no difference to whether it matches
        return lambda: self._build_repeated(part, least, most)

    def _times(self) -> tuple[int, int | None]:
        for mark, times in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._eat(mark):
                return times
        if not self._eat("{"):
            return 1, 1
        begin = self.at
        self.at = self.into.source.find("}", begin)
        given = self.into.source[begin : self.at].split(",") if self.at >= 0 else []
        if not 1 <= len(given) <= 2 or not given[0].isdecimal() or not all(one.isdecimal() or not one for one in given):
            raise refuse(f"has a repetition that can't be read, at letter {begin}")
        self.at += 1
        least, most = int(given[0]), (int(given[-1]) if given[-1] else None)
        if max(least, most or 0) > MOST_REPEATS or (most is not None and most < least):
            raise refuse(f"repeats up to {MOST_REPEATS} times, fewer first, at letter {begin}")
        return least, most

    def _build_repeated(self, part: Part, least: int, most: int | None) -> tuple[int, int]:
        first = last = self.into.state()
        for _ in range(least):
            begin, end = part()
            self.into.link(last, begin)
            last = end
        over = self.into.state()
        self.into.link(last, over)
        if most is None:
            begin, end = part()
            self.into.link(last, begin)
            self.into.link(end, last)
        for _ in range((most or least) - least):
            begin, end = part()
            self.into.link(last, begin)
            self.into.link(end, over)
            last = end
        return first, over

    def _atom(self) -> Part:
        place = self.at + 1
        letter = self._next()
        self.at += 1
        match letter:
            case "(":
                return self._group(place)
            case "[":
                return self._letter(self._class(place))
            case ".":
                return self._letter(lambda found: found != "\n")
            case "^" | "$":
                return lambda: self._build_guard(end=letter == "$")
            case "\\":
                return self._letter(self._escape(place))
            case "*" | "+" | "?" | "{":
                raise refuse(f"repeats nothing, at letter {place}")
            case _:
                return self._letter(self._is(letter))

    def _group(self, place: int) -> Part:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise refuse(f"has more than {MOST_DEPTH} groups in each other")
        if self._eat("?") and not self._eat(":"):
            raise refuse(f"looks around or names a group, which is not built, at letter {place}")
        part = self._either()
        if not self._eat(")"):
            raise refuse(f"opens a group that is never closed, at letter {place}")
        self.depth -= 1
        return part

    def _escape(self, place: int) -> Test:
        letter = self._next()
        self.at += 1
        if letter.lower() in _CLASSES and letter:
            test = _CLASSES[letter.lower()]
            return test if letter.islower() else _none_of([test])
        if letter in _CONTROLS:
            return self._is(_CONTROLS[letter])
        if letter in _SPECIAL and letter:
            return self._is(letter)
        raise refuse(f"has an escape that is not built, at letter {place}")

    def _class(self, place: int) -> Test:
        is_negated = self._eat("^")
        tests = list(self._members(place))
        return _none_of(tests) if is_negated else _any_of(tests)

    def _members(self, place: int) -> Iterator[Test]:
        count = 0
        while self._next() != "]" or not count:
            letter = self._next()
            count += 1
            self.at += 1
            if not letter:
                raise refuse(f"opens a class that is never closed, at letter {place}")
            if letter == "\\":
                yield self._escape(self.at)
                continue
            end = self.into.source[self.at + 1 : self.at + 2]
            if self._next() == "-" and end not in ("", "]"):
                self.at += 2
                if end == "\\" or end < letter:
                    raise refuse(f"has a range that can't be read, at letter {self.at}")
                yield self._between(letter, end)
            else:
                yield self._is(letter)
        self.at += 1

    def _is(self, letter: str) -> Test:
        if not self.into.ignore_case:
            return lambda found: found == letter
        same = {letter, letter.lower(), letter.upper()}
        return lambda found: found in same or found.lower() in same

    def _between(self, first: str, last: str) -> Test:
        if not self.into.ignore_case:
            return lambda found: first <= found <= last
        return lambda found: any(first <= each <= last for each in (found, found.lower(), found.upper()))

    def _letter(self, test: Test) -> Part:
        def built() -> tuple[int, int]:
            first, last = self.into.state(), self.into.state()
            self.into.take(first, test, last)
            return first, last

        return built

    def _build_guard(self, *, end: bool) -> tuple[int, int]:
        first, last = self.into.state(), self.into.state()
        self.into.guard(first, last, end=end)
        return first, last


def _any_of(tests: list[Test]) -> Test:
    return lambda found: any(test(found) for test in tests)


def _none_of(tests: list[Test]) -> Test:
    return lambda found: not any(test(found) for test in tests)
