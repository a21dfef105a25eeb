"""The source tree as the house rules read it: modules with their syntax trees, and every text file.

Owns finding and parsing only; each rule lives beside its test. Nothing here imports the product.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: where the product lies; tests, benchmarks and tools are apart
SOURCES = ("shardwork", "coordinator", "worker", "client")
EVERYTHING = (*SOURCES, "tests", "bench", "deploy", "docs")
GENERATED = "shardwork/v1/"
#: folders that hold nothing of ours, wherever they lie
FOREIGN = frozenset({"__pycache__", "node_modules", "build", "dist", "demo-out"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Module:
    #: relative to the repository, with '/'
    path: str
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


def planted(text: str, path: str = "shardwork/planted.py") -> Module:
    """A module that exists in a test only: how each rule shows that it can fail."""
    return Module(path, text, ast.parse(text))


@cache
def module(path: str) -> Module:
    """One module by its path in the repository."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return Module(path, text, ast.parse(text, filename=path))


def modules(*folders: str) -> list[Module]:
    """Every hand-written module below these folders of the repository, in order."""
    found: list[Module] = []
    for folder in folders:
        for path in sorted(_walk(ROOT / folder)):
            relative = path.relative_to(ROOT).as_posix()
            if path.suffix == ".py" and not relative.startswith(GENERATED):
                found.append(module(relative))
    return found


def files() -> list[Path]:
    """Every file that belongs to the repository."""
    return sorted(_walk(ROOT))


def _walk(folder: Path) -> Iterator[Path]:
    for where, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not _is_foreign(name)]
        yield from (Path(where) / name for name in names)


def _is_foreign(name: str) -> bool:
    return name in FOREIGN or name.endswith(".egg-info") or (name.startswith(".") and name != ".ci")


def assert_none(found: Iterable[str]) -> None:
    """Fails with every finding, one a line; pytest alone would cut the list short."""
    lines = list(found)
    assert not lines, "\n" + "\n".join(lines)


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """(qualified name as Python writes it, function) for every function, however deep."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield prefix + node.name, node
            yield from functions(node, f"{prefix}{node.name}.<locals>.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Dotted names that an import statement may load: the module, and for `from a import b` also a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = "." * node.level + (node.module or "")
    joint = "" if base.endswith(".") else "."
    return [base, *(f"{base}{joint}{alias.name}" for alias in node.names)]


def imports_at_load(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run when the module is loaded: not those in functions, nor under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not isinstance(node, Function | ast.Lambda) and not _only_for_types(node):
            yield from imports_at_load(node)


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
