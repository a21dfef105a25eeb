"""The smallest job: count the words of a text. Log in first (`shardwork init`), then run this file.

python examples/count_words.py [TEXT_FILE]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import shardwork


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch, "text.txt")
        if len(sys.argv) < 2:
            text.write_text("to be or not to be\n" * 20)
        job = {
            "name": "words",
            "recipe": "count",
            "data": text,
            "plan": {"shards_per_round": 2},
            "trust": {"class": "public"},
            "budget": {"max_sats": 50},
        }
        with shardwork.Client(on_progress=shardwork.show_progress()) as client:
            plan = client.plan(job)
            print(f"up to {plan.quote.reserve_msat / 1000:.0f} sat, of which what is not spent returns")
            running = client.submit(plan)
            status = running.wait()
            (output,) = running.download(Path(scratch, "out"))
            counts = json.loads(next(output.folder.glob("*.json")).read_text())
    print(f"{status.name}: {status.state}, spent {status.spent_msat / 1000:.0f} sat")
    print(json.dumps(counts)[:200])


if __name__ == "__main__":
    main()
