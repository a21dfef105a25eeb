"""A small job that trains nothing, submitted through the CLI: what the failpoint tests run again and again."""

from __future__ import annotations

from pathlib import Path

from processes import Processes

JOB = """
name: words
recipe: count
data: text.txt
plan: {{shards_per_round: {parts}}}
trust: {{class: public}}
budget: {{max_sats: 100}}
schedule: {{{schedule}}}
"""


def write(folder: Path, *, parts: int = 2, timeout_hours: float | None = None) -> None:
    """text.txt and words.yaml."""
    schedule = f"timeout_hours: {timeout_hours}" if timeout_hours else ""
    (folder / "text.txt").write_text("one two two three three three\n" * 50, encoding="utf-8")
    (folder / "words.yaml").write_text(JOB.format(parts=parts, schedule=schedule), encoding="utf-8")


def submit(processes: Processes) -> str:
    """The job's id; a retry of the same file after a lost answer is the same job."""
    return str(processes.ask("job", "submit", "words.yaml", "--yes")["id"])
