"""The job that everybody answers: pairs of answers of a few models whose strengths are planted.

Which answer is better is drawn once for each pair by its models' strengths (Bradley and Terry 1952) and stands in its
text, for those who read. Pairs of a hidden item say that they are plain, because people err less there.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from tests.shardwork.feedback.simulation import strengths

MODELS, GAP = 6, 1.0
PAIRS, GOLDS, OVERLAP = 300, 80, 4
#: shorter than anybody reads, and longer than a call takes on a busy machine
LEAST_SECONDS = 4
BETTER, WORSE, PLAIN = "It says what to do, step by step.", "It says that it depends.", "Plainly:"
JOB = f"""
name: annotators
recipe: people
data: pairs.jsonl
params: {{title: "Which answer helps more?", pay_sats: 2, overlap: {OVERLAP}, least_seconds: {LEAST_SECONDS}}}
trust: {{class: public}}
budget: {{max_sats: 60000}}
"""


def write(folder: Path, seed: int) -> dict[str, float]:
    """The job's files; the planted strengths."""
    planted, chance = strengths(MODELS, GAP), random.Random(seed)
    rows = [_row(number, planted, chance) for number in range(PAIRS + GOLDS)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "annotators.yaml").write_text(JOB, encoding="utf-8")
    return planted


def _row(number: int, planted: dict[str, float], chance: random.Random) -> dict[str, object]:
    one, other = chance.sample(sorted(planted), 2)
    is_first = chance.random() < 1 / (1 + math.exp(planted[other] - planted[one]))
    texts = (BETTER, WORSE) if is_first else (WORSE, BETTER)
    is_gold = number >= PAIRS
    row: dict[str, object] = {
        "prompt_id": f"p{number}",
        "prompt": f"{PLAIN if is_gold else 'Well:'} how is thing {number} done?",
        "answers": [{"model": model, "text": text} for model, text in zip((one, other), texts, strict=True)],
    }
    return row | ({"gold": {"winner": "a" if is_first else "b"}} if is_gold else {})
