"""Marked: a YAML, JSON or TOML text as plain values together with the line of every key.

Owns reading the three syntaxes safely: no tags that build objects, no duplicate keys, no values that are not finite,
bounded size and depth. Knows nothing of job files; `shardwork.jobs.file` calls it and names the problems' keys.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, cast

import yaml

from ..problem import Problem

KeyPath = tuple[str | int, ...]

#: a job file is small; these bounds stop alias bombs and deep nesting before they cost anything
MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 24


@dataclass(frozen=True, slots=True)
class Marked:
    """The values, the line of each key and what was wrong on the way."""

    values: Any
    lines: Mapping[KeyPath, int]
    problems: tuple[Problem, ...] = ()

    def line(self, path: KeyPath) -> int | None:
        """The line of the key, or of the nearest key around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


def parse(text: str, file: str) -> Marked:
    """Reads `text` in the syntax that the file's ending names; YAML when it names none. Never raises on bad text."""
    suffix = PurePath(file).suffix.lower()
    if suffix == ".json":
        return _parse_json(text, file)
    if suffix == ".toml":
        return _parse_toml(text, file)
    return _parse_yaml(text, file)


def dotted(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)


# ---- YAML ---------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """SafeLoader that guesses types as YAML 1.2 does: 1e-3 is a number; `on`, 010, 1:30 and 2026-01-01 stay text."""


#: tag -> its pattern and the letters it may begin with
_SCALARS = {
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": ("[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    "float": (
        r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "null": ("~|null|Null|NULL|", "~nN"),
}
_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _letters) in _SCALARS.items():
    _Loader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType]
        f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), [*_letters, *([""] if _name == "null" else [])]
    )


@dataclass(slots=True)
class _Walk:
    """One walk over a YAML node tree: plain values out, lines and problems collected."""

    file: str
    loader: _Loader
    lines: dict[KeyPath, int] = field(default_factory=dict[KeyPath, int])
    problems: list[Problem] = field(default_factory=list[Problem])
    nodes: int = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            if not any(problem.code == "jobfile.too_large" for problem in self.problems):
                self._too_much(path[:1])
            return None
        if not str(node.tag).startswith(_PLAIN_TAGS):
            sentence = f"Tags such as {_tag(node.tag)} are not read."
            self._problem(node, path, "jobfile.syntax", sentence, "Write the plain value.")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = cast("list[yaml.Node]", node.value)
            for index, item in enumerate(items):
                self.lines[(*path, index)] = item.start_mark.line + 1
            return [self.value(item, (*path, index)) for index, item in enumerate(items)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            line = key_node.start_mark.line + 1
            if key == "<<":
                fix = "Write the keys out where they belong."
                self._problem(key_node, path, "jobfile.syntax", "Merge keys (`<<`) are not read.", fix)
                continue
            if key in found:
                first = self.lines[(*path, key)]
                self.problems.append(_duplicate(self.file, line, (*path, key), f"It stands on line {first} already."))
                continue
            self.lines[(*path, key)] = line
            found[key] = self.value(value_node, (*path, key))
        return found

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        try:
            value: Any = self.loader.construct_object(node)  # pyright: ignore[reportUnknownMemberType]
        except (yaml.YAMLError, ValueError) as error:
            self._problem(node, path, "jobfile.syntax", f"This value cannot be read: {_short(error)}.", "Mend it.")
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self._problem(node, path, "jobfile.wrong_value", "A number must be finite.", "Write a plain number.")
            return None
        return value

    def _too_much(self, path: KeyPath) -> None:
        """Named by the outermost key: what lies inside may be written anywhere, by an alias."""
        sentence, fix = "The file nests or repeats too much.", "Shorten it."
        key, line = dotted(path), self.lines.get(path)
        self.problems.append(
            Problem(file=self.file, line=line, key=key, code="jobfile.too_large", sentence=sentence, fix=fix)
        )

    def _problem(self, node: yaml.Node, path: KeyPath, code: str, sentence: str, fix: str) -> None:
        line = node.start_mark.line + 1
        self.problems.append(
            Problem(file=self.file, line=line, key=dotted(path), code=code, sentence=sentence, fix=fix)
        )


def _parse_yaml(text: str, file: str) -> Marked:
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return Marked(None, {})
        walk = _Walk(file, loader)
        return Marked(walk.value(node, ()), walk.lines, tuple(walk.problems))
    except yaml.MarkedYAMLError as error:
        return Marked(None, {}, (_yaml_problem(error, file),))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        return Marked(None, {}, (_syntax(file, line, "YAML", "it holds a control character", "Remove it."),))
    except (yaml.YAMLError, RecursionError) as error:
        return Marked(None, {}, (_syntax(file, None, "YAML", _short(error)),))
    finally:
        if loader is not None:
            loader.dispose()


def _yaml_problem(error: yaml.MarkedYAMLError, file: str) -> Problem:
    """Where something that was opened is never closed, the place is its beginning: the end says nothing."""
    detail, context = error.problem or error.context or "", error.context or ""
    mark = error.problem_mark or error.context_mark
    fix = next((fix for words, fix in _YAML_FIXES if words in detail), _SYNTAX_FIX)
    for words, opened in _YAML_OPENED:
        if words in context and error.context_mark is not None:
            mark, fix = error.context_mark, opened
    return _syntax(file, mark.line + 1 if mark else None, "YAML", detail, fix)


#: tags that YAML itself gives plain values; anything else would build an object
_PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null"))


def _tag(tag: object) -> str:
    text = str(tag).replace("tag:yaml.org,2002:", "!!")
    return text if len(text) <= 40 else f"{text[:37]}..."


_SYNTAX_FIX = "Mend the syntax there or just before it."
#: what people meet most, by a part of PyYAML's words
_YAML_FIXES = (
    ("character '\\t'", "Indent with spaces; YAML takes no tabs."),
    ("mapping values are not allowed", 'Put a value that holds ": " in quotes, and check the indentation.'),
    ("another document", "Keep one document: remove `---` and what follows it."),
)
#: the same for PyYAML's words about what was being read, where the mistake lies at its beginning
_YAML_OPENED = (
    ("quoted scalar", "Close the quote that opens there."),
    ("flow mapping", "Close the brace that opens there."),
    ("flow sequence", "Close the bracket that opens there."),
    ("simple key", "Write `key: value`, with a space behind the colon."),
)

# ---- JSON ---------------------------------------------------------------------------------------------------------


def _parse_json(text: str, file: str) -> Marked:
    repeated: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            if key in found:
                repeated.append(key)
            found[key] = value
        return found

    def constant(word: str) -> Any:
        raise ValueError(f"{word} is not a JSON number")

    try:
        values = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as error:
        return Marked(None, {}, (_syntax(file, error.lineno, "JSON", error.msg),))
    except (ValueError, RecursionError) as error:
        return Marked(None, {}, (_syntax(file, None, "JSON", _short(error)),))
    # JSON is nearly YAML: its node tree gives the lines. Where it is not (odd escapes), the lines are left out.
    shadow = _parse_yaml(text.replace("\t", " "), file)
    if repeated and not shadow.problems:
        return Marked(values, shadow.lines, tuple(_duplicate(file, None, (key,), "") for key in repeated))
    duplicates = tuple(problem for problem in shadow.problems if problem.code == "jobfile.duplicate_key")
    return Marked(values, shadow.lines, duplicates)


# ---- TOML ---------------------------------------------------------------------------------------------------------

_TOML_TABLE = re.compile(r"^\s*(\[\[?)\s*([A-Za-z0-9_.\"' -]+?)\s*\]\]?\s*(#.*)?$")
_TOML_KEY = re.compile(r"^\s*([A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')\s*((?:\.\s*[A-Za-z0-9_-]+\s*)*)=")
_TOML_LINE = re.compile(r"line (\d+)")


def _parse_toml(text: str, file: str) -> Marked:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_LINE.search(str(error))
        line = int(found.group(1)) if found else None
        if "overwrite" in str(error) or "twice" in str(error):
            return Marked(None, {}, (_duplicate(file, line, (), ""),))
        return Marked(None, {}, (_syntax(file, line, "TOML", _short(error)),))
    return Marked(values, _toml_lines(text))


def _toml_lines(text: str) -> dict[KeyPath, int]:
    """Best effort: table headers and `key =` at the start of a line."""
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    prefix: KeyPath = ()
    for number, line in enumerate(text.splitlines(), 1):
        if table := _TOML_TABLE.match(line):
            prefix = _toml_prefix(table.group(1) == "[[", table.group(2), counts)
            lines.setdefault(prefix, number)
            for end in range(1, len(prefix)):
                lines.setdefault(prefix[:end], number)
        elif key := _TOML_KEY.match(line):
            names = [key.group(1).strip("\"'"), *(part.strip() for part in key.group(2).split(".")[1:])]
            for end in range(1, len(names) + 1):
                lines.setdefault((*prefix, *names[:end]), number)
    return lines


def _toml_prefix(is_array: bool, name: str, counts: dict[KeyPath, int]) -> KeyPath:
    path: KeyPath = ()
    parts = [part.strip().strip("\"'") for part in name.split(".")]
    for index, part in enumerate(parts):
        path = (*path, part)
        if is_array and index == len(parts) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


# ---- problems -----------------------------------------------------------------------------------------------------


def _syntax(file: str, line: int | None, language: str, detail: str, fix: str = _SYNTAX_FIX) -> Problem:
    return Problem(
        file=file,
        line=line,
        key="",
        code="jobfile.syntax",
        sentence=f"This is not valid {language}: {detail.rstrip('.')}.",
        fix=fix,
    )


def _duplicate(file: str, line: int | None, path: KeyPath, detail: str) -> Problem:
    return Problem(
        file=file,
        line=line,
        key=dotted(path),
        code="jobfile.duplicate_key",
        sentence=f"A key is given twice. {detail}".strip(),
        fix="Keep one of them.",
    )


def _short(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it nests too deep"
    return " ".join(str(error).split())[:200].rstrip(".")
