"""How fast data is checked: rows a second of `check_data` beside a bare `json.loads` loop over the same file.

Two files: short question-and-answer rows, and documents of some 60 words. CPU seconds, because the machine may be busy;
each figure is the least of three runs. With held-out rows every row is sketched and compared as well.

    python bench/data_check.py [--rows 300000]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from shardwork.dataset import CheckOptions, check_data

RESULT = Path(__file__).resolve().parent / "results" / "data_check.json"


def write_pairs(path: Path, rows: int) -> None:
    with path.open("w") as sink:
        for n in range(rows):
            sink.write(json.dumps({"prompt": f"What is {n} and one?", "completion": f"It is {n + 1}."}) + "\n")


def write_texts(path: Path, rows: int) -> None:
    chance = random.Random(1)
    words = [f"w{number:x}" for number in range(20_000)]
    with path.open("w") as sink:
        for _ in range(rows):
            sink.write(json.dumps({"text": " ".join(chance.choices(words, k=60))}) + "\n")


def bare(path: Path) -> int:
    with path.open(encoding="utf-8") as lines:
        return sum(1 for line in lines if json.loads(line))


def least(work: Callable[[], Any], repeats: int) -> float:
    found: list[float] = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)


def measured(path: Path, rows: int, repeats: int) -> dict[str, float]:
    def check(fraction: float | None) -> None:
        report = check_data([path], recipe=None, options=CheckOptions(eval_fraction=fraction))
        assert report.rows == rows and not report.errors

    loop, plain, compared = (
        least(work, repeats) for work in (lambda: bare(path), lambda: check(None), lambda: check(0.01))
    )
    return {
        "bytes": path.stat().st_size,
        "json_loop_rows_a_second": round(rows / loop),
        "check_rows_a_second": round(rows / plain),
        "check_with_near_duplicates_rows_a_second": round(rows / compared),
        "check_to_loop": round(plain / loop, 2),
        "compared_to_loop": round(compared / loop, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs, texts = Path(folder) / "pairs.jsonl", Path(folder) / "texts.jsonl"
        write_pairs(pairs, given.rows)
        write_texts(texts, given.rows)
        result = {
            "rows": given.rows,
            "pairs": measured(pairs, given.rows, given.repeats),
            "texts": measured(texts, given.rows, given.repeats),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
