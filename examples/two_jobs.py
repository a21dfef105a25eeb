"""Two jobs side by side with asyncio; the wallet before and after.

python examples/two_jobs.py
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import shardwork


def words(name: str, folder: Path) -> dict[str, object]:
    text = folder / f"{name}.txt"
    text.write_text(f"{name} and again {name}\n" * 20)
    return {
        "name": name,
        "recipe": "count",
        "data": text,
        "plan": {"shards_per_round": 1},
        "trust": {"class": "public"},
        "budget": {"max_sats": 50},
    }


async def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        async with shardwork.AsyncClient() as client:
            before = await client.wallet.balance()
            jobs = [await client.submit(words(name, Path(scratch))) for name in ("hop", "skip")]
            for status in await asyncio.gather(*(job.wait() for job in jobs)):
                print(status.name, status.state)
            after = await client.wallet.balance()
    spent = before.available_msat - after.available_msat
    print(f"{spent} msat{' (simulated)' if after.is_simulated else ''} for {len(jobs)} jobs")


if __name__ == "__main__":
    asyncio.run(main())
