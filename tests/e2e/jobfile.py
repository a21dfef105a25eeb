"""The job file of the end-to-end tests: tune the GPT-2 folder beside it on chat rows.

Each test changes what it needs.
"""

from __future__ import annotations

from pathlib import Path

SFT = """\
name: {name}
recipe: sft
base_model: {base_model}
data: {data}
eval_fraction: 0.2
params: {{method: {method}, max_length: 64, batch_size: 4, learning_rate: 0.003}}
plan: {{rounds: {rounds}, shards_per_round: {shards}, inner_steps: {steps}}}
trust: {{class: public}}
budget: {{max_sats: 500}}
"""
DEFAULTS: dict[str, object] = {
    "name": "rivers",
    "base_model": "models/gpt2",
    "data": "chat.jsonl",
    "method": "lora",
    "rounds": 1,
    "shards": 2,
    "steps": 3,
}
#: makes a shard last long enough to be interrupted in the middle of it, and short enough to wait for
LONG_STEPS = 150


def write_sft(folder: Path, file: str = "job.yaml", **changes: object) -> str:
    """The job file's name in `folder`."""
    (folder / file).write_text(SFT.format(**{**DEFAULTS, **changes}))
    return file
