"""The machine under thousands of random schedules: every job ends, the books balance, nothing is kept back."""

from __future__ import annotations

import pytest

from shardwork_coordinator.machine.states import FINAL_JOB

from .simulation import count_job, sft_job
from .unruly import Unruly

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]
SCHEDULES_A_BLOCK = 500


@pytest.mark.parametrize("block", range(8))
async def test_whatever_happens_a_job_ends_and_keeps_nothing(block: int) -> None:
    for seed in range(block * SCHEDULES_A_BLOCK, (block + 1) * SCHEDULES_A_BLOCK):
        simulation = Unruly(workers=1 + seed % 5, seed=seed)
        if seed % 2:
            simulation.attach("reference0000000", reference=True)
        simulation.losses = [{1: 9.0}, {2: 9.0, 3: 9.0}, {}][seed % 3]
        learning = sft_job(rounds=1 + seed % 4, shards=1 + seed % 5, held_out=bool(seed % 7))
        await simulation.submit(learning if seed % 4 else count_job(parts=1 + seed % 6))
        assert await simulation.run_unruly() in FINAL_JOB, seed
        for replica in await simulation.held():
            await simulation.lose(replica)
        await simulation.check_books()
        await simulation.check_ending()
