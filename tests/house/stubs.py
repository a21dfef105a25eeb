# pyright: standard
"""Stub drift: regenerates the stubs into a temporary folder and compares. `make check` runs it as a module."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def drift() -> list[str]:
    """Names of committed stubs that differ from what `proto/` generates now."""
    from grpc_tools import protoc  # type: ignore[import-untyped]

    # protoc looks for mypy's plugin on the path; it lies beside this Python
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    protos = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        outs = [f"--{kind}_out={option}{folder}" for kind, option in _KINDS]
        status = protoc.main(["protoc", f"-I{ROOT / 'proto'}", *outs, *protos])
        if status != 0:
            return [f"protoc ended with status {status}"]
        made = {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*.py*")}
    kept = {path.relative_to(ROOT): path.read_bytes() for path in (ROOT / "shardwork" / "v1").glob("*_pb2*.py*")}
    return sorted(str(name) for name in made.keys() | kept.keys() if made.get(name) != kept.get(name))


_KINDS = (("python", ""), ("grpc_python", ""), ("mypy", "quiet:"), ("mypy_grpc", "quiet:"))

if __name__ == "__main__":
    found = drift()
    for name in found:
        print(f"differs from proto/: {name}", file=sys.stderr)
    if found:
        sys.exit("run `make proto` and commit the result")
    print("stubs match proto/")
