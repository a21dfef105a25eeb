"""What the kernel saw: every byte of an artifact is fsynced before its row is committed, and that before the answer."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from shardwork.artifact import LEAF_BYTES, describe_folder

from .service import fill

#: uploads a folder to a coordinator in the same process; commits and the answer leave marks that strace sees
SCRIPT = """
import asyncio, os, sys
from pathlib import Path
from shardwork import transfer
from shardwork_coordinator.records import Artifact
from tests.coordinator.artifacts.service import NamedSession, serving
root, folder = Path(sys.argv[1]), Path(sys.argv[2])
def mark(name):
    (root.parent / name).touch()
async def main():
    async with serving(root) as service:
        commit = service.rows.write
        async def write(work):
            await commit(work)
            [row] = await service.rows.read(lambda tx: tx.find(Artifact))
            mark(f"row-{row.state.value}")
        service.rows.write = write
        await transfer.upload_folder(NamedSession(service.port, "0a"), folder, purpose="input")
        mark("answered")
asyncio.run(main())
"""
CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>")


@dataclass
class Call:
    name: str
    arguments: str
    #: line on which it returned
    line: int


def calls_of(trace: str) -> list[Call]:
    """Calls in the order in which they returned; a call that was interrupted by another thread's line counts late."""
    waiting: dict[tuple[str, str], str] = {}
    calls: list[Call] = []
    for number, line in enumerate(trace.splitlines()):
        if resumed := RESUMED.match(line):
            pid, name = resumed.groups()
            calls.append(Call(name, waiting.pop((pid, name), ""), number))
        elif found := CALL.match(line):
            pid, name, arguments = found.groups()
            if "<unfinished" in arguments:
                waiting[pid, name] = arguments
            else:
                calls.append(Call(name, arguments, number))
    return calls


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_packs_and_manifest_are_fsynced_before_the_row_and_the_answer(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", a=70 * LEAF_BYTES, b=3)
    artifact_id = describe_folder(folder).id
    root, trace = tmp_path / "store", tmp_path / "trace"
    command = ["strace", "-f", "-y", "-o", str(trace), "-e", "trace=fsync,fdatasync,rename,renameat2,openat"]
    script = [sys.executable, "-c", SCRIPT, str(root), str(folder)]
    subprocess.run([*command, *script], check=True, timeout=120, env={"PYTHONPATH": "."})
    calls = calls_of(trace.read_text())
    upload = root / "uploads" / f"{artifact_id}.0a"

    def line_of(name: str, text: str) -> int:
        """The last such call that returned."""
        lines = [call.line for call in calls if call.name == name and text in call.arguments]
        assert lines, f"no {name} of {text}"
        return lines[-1]

    synced = [line_of("fsync", f"<{upload}/{name}>") for name in ("0", "1", "manifest.tmp")]
    manifest_named = line_of("rename", f'"{upload}/manifest"')
    names_synced = line_of("fsync", f"<{upload}>")
    published = line_of("rename", f'"{root}/packs/{artifact_id}"')
    publishing_synced = line_of("fsync", f"<{root}/packs>")
    row = line_of("openat", f'"{tmp_path}/row-stored"')
    answered = line_of("openat", f'"{tmp_path}/answered"')
    assert max(synced[2], 0) < manifest_named < names_synced
    assert max(synced) < names_synced < published < publishing_synced < row < answered
