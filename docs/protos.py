"""The RPC page, from proto/: every service with its comments, every message with its fields.

Reads the few forms that our protos use, line by line; a form it doesn't know is an error, not a gap in the page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tables import code, page, table

PROTO = Path(__file__).parents[1] / "proto" / "shardwork" / "v1"

OPEN = re.compile(r"^(service|message|enum|oneof) (\w+) \{(\})?(?:\s*// (.*))?$")
RPC = re.compile(r"^rpc (\w+)\((stream )?(\w+)\) returns \((stream )?(\w+)\);$")
FIELD = re.compile(r"^((?:repeated |optional )?(?:map<[\w, ]+>|\w+)) (\w+) = \d+;(?:\s*// (.*))?$")
VALUE = re.compile(r"^([A-Z_]+) = \d+;(?:\s*// (.*))?$")
SKIP = re.compile(r"^(syntax|package|import) .*;$")


@dataclass(slots=True)
class Block:
    """A service, message or enum."""

    kind: str
    name: str
    comment: str
    rows: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])


@dataclass(slots=True)
class File:
    name: str
    comment: str = ""
    blocks: list[Block] = field(default_factory=list[Block])


def services() -> str:
    parts: list[str] = []
    for path in sorted(PROTO.glob("*.proto")):
        parts.append(_section(parse(path.name, path.read_text(encoding="utf-8"))))
    lead = (
        "The contract is `proto/shardwork/v1`. Every call but those marked token-free carries `authorization: Bearer "
        "<token>`. A failure is a gRPC status with a `Why` as its detail: see [codes](codes.md)."
    )
    return page("Calls and messages", lead, *parts)


def parse(name: str, text: str) -> File:
    """Raises ValueError on a line that it does not know."""
    made, comment, block, depth = File(name), [], None, 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith("//"):
            comment.append(line.removeprefix("//").strip())
            continue
        said, comment = " ".join(comment), []
        if line.startswith("syntax"):
            made.comment = said
        elif opened := OPEN.match(line):
            if opened[1] == "oneof":
                depth += 1
                continue
            block = Block(opened[1], opened[2], said or opened[4] or "")
            made.blocks.append(block)
        elif line == "}":
            depth = max(depth - 1, 0)
        elif block is not None and (row := _row(block.kind, line, said)):
            block.rows.append(row)
        elif line and not SKIP.match(line):
            raise ValueError(f"{name}:{number} is a form this page doesn't know: {line}")
    return made


def _row(kind: str, line: str, said: str) -> tuple[str, ...] | None:
    if kind == "service" and (call := RPC.match(line)):
        takes, gives = (f"{stream or ''}{name}" for stream, name in ((call[2], call[3]), (call[4], call[5])))
        return code(call[1]), code(takes), code(gives), said
    if kind == "message" and (one := FIELD.match(line)):
        return code(one[2]), code(one[1]), one[3] or said
    if kind == "enum" and (value := VALUE.match(line)):
        return code(value[1]), "", value[2] or said
    return None


def _section(file: File) -> str:
    parts = [f"## {file.name}", file.comment]
    for block in file.blocks:
        heads = ("Call", "Request", "Answer", "Meaning") if block.kind == "service" else ("Field", "Type", "Meaning")
        parts += [f"### {block.name}", block.comment, table(heads, block.rows) or "No fields."]
    return "\n\n".join(part.strip("\n") for part in parts if part)
