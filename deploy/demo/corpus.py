"""Writes the demo's data: plain text and chat rows, both from the docstrings of Python's own standard library.

No download; a megabyte that any Python has. Every answer opens with the same words, so that tuning teaches a manner
of answering, which is what tuning is for. Called by `run`.
"""

from __future__ import annotations

import ast
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

MODULES = """
argparse ast asyncio base64 bisect calendar cmd codecs collections concurrent configparser contextlib copy csv
dataclasses datetime difflib dis doctest email enum fileinput fractions ftplib functools glob gzip heapq html http
imaplib inspect io ipaddress json logging lzma mailbox mimetypes multiprocessing netrc optparse os pathlib pdb pickle
platform plistlib poplib pprint profile pydoc queue random re sched secrets selectors shelve shlex shutil smtplib
socket socketserver sqlite3 ssl statistics string subprocess tarfile tempfile textwrap threading timeit tokenize trace
traceback turtle types typing unittest urllib uuid venv warnings wave weakref xml zipfile
"""


def write(folder: Path, *, text_rows: int = 6_000, chat_rows: int = 1_500) -> tuple[Path, Path]:
    """(text.jsonl, chat.jsonl) in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    documented = list(_docstrings())
    text, chat = folder / "text.jsonl", folder / "chat.jsonl"
    with text.open("w", encoding="utf-8") as sink:
        for _, doc in documented[:text_rows]:
            sink.write(json.dumps({"text": doc}) + "\n")
    with chat.open("w", encoding="utf-8") as sink:
        for name, doc in _short(documented)[:chat_rows]:
            messages = [
                {"role": "user", "content": f"What does {name} do?"},
                {"role": "assistant", "content": f"In the standard library, this is what it does: {doc}"},
            ]
            sink.write(json.dumps({"messages": messages}) + "\n")
    return text, chat


def _docstrings() -> Iterator[tuple[str, str]]:
    """(dotted name, docstring) of the library's modules, classes and functions, in a fixed order."""
    library = Path(sysconfig.get_path("stdlib"))
    for module in MODULES.split():
        root = library / module
        files = sorted(root.rglob("*.py")) if root.is_dir() else [root.with_suffix(".py")]
        for path in files:
            if not path.is_file() or "test" in path.parts:
                continue
            dotted = ".".join(path.relative_to(library).with_suffix("").parts).removesuffix(".__init__")
            yield from _of_file(path, dotted)


def _of_file(path: Path, dotted: str) -> Iterator[tuple[str, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (doc := ast.get_docstring(node)):
            name = dotted if isinstance(node, ast.Module) else f"{dotted}.{node.name}"
            yield name, doc


def _short(documented: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """One sentence an answer: the first line of a docstring that has one."""
    first = ((name, doc.strip().splitlines()[0].strip()) for name, doc in documented)
    return [(name, line) for name, line in first if 20 <= len(line) <= 110 and line.endswith(".")]
