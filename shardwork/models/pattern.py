"""Whether a regular expression can take for ever: repeats of what is itself not fixed, with a matcher that turns back.

Owns a small reading of the Oniguruma syntax that tokenizers use, just enough to see groups, alternatives and repeats.
Cautious: some harmless patterns of that shape are named too, but none of the tokenizers in use has one. Called by
`shardwork.models.tokenizer`.
"""

from __future__ import annotations

import re

#: repeated no more often than this, a group can't do harm
FEW = 8
_COUNTED = re.compile(r"\{(\d*)(,?)(\d*)\}")
_CLASS_OR_CODE = re.compile(r"\\(?:[pPx]\{[^}]*\}|.)", re.DOTALL)


def can_explode(expression: str) -> bool:
    """True for (a+)+, (a|aa)*, (?:a?){50} and their kin."""
    #: for each open group: whether something in it can match in more than one length or way
    open_groups = [False]
    loose_group = False  # the atom just read is a group of that kind
    at = 0
    while at < len(expression):
        sign = expression[at]
        counted = _COUNTED.match(expression, at) if sign == "{" else None
        if sign in "*+?" or counted:
            most, fixed, at = _repeat(expression, at, counted)
            possessive = expression[at : at + 1] == "+" and not counted
            at += expression[at : at + 1] in ("+", "?") and not counted
            if loose_group and most > FEW and not possessive:
                return True
            open_groups[-1] |= not fixed and not possessive
            loose_group = False
            continue
        loose_group = False
        if sign == "\\" and (escape := _CLASS_OR_CODE.match(expression, at)):
            at = escape.end()
        elif sign == "[":
            at = _after_class(expression, at)
        elif sign == "(":
            open_groups.append(False)
            at = _after_opening(expression, at)
        elif sign == ")" and len(open_groups) > 1:
            loose_group = open_groups.pop()
            open_groups[-1] |= loose_group
            at += 1
        else:
            open_groups[-1] |= sign == "|" and len(open_groups) > 1
            at += 1
    return False


def _repeat(expression: str, at: int, counted: re.Match[str] | None) -> tuple[float, bool, int]:
    """(most repeats, whether there is one number of them, where the expression goes on)."""
    if counted is None:
        return (1 if expression[at] == "?" else float("inf")), False, at + 1
    least, comma, most = counted.groups()
    if not comma:
        return float(least or 0), True, counted.end()
    return (float(most) if most else float("inf")), most == least, counted.end()


def _after_class(expression: str, at: int) -> int:
    """Behind [...], which may hold others."""
    depth = 0
    while at < len(expression):
        if expression[at] == "\\":
            at += 1
        elif expression[at] == "[":
            depth += 1
        elif expression[at] == "]":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return at


def _after_opening(expression: str, at: int) -> int:
    """Behind "(", and behind what says the group's kind: (?:, (?=, (?<name>, (?i:"""
    kind = re.compile(r"\((?:\?(?:<[=!]|<\w+>|[a-z-]*:|[=!>~]))?").match(expression, at)
    return kind.end() if kind else at + 1
