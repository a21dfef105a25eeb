"""A job without workers waits, says why, and gives everything back when it is cancelled."""

from __future__ import annotations

from . import models
from .jobfile import write_sft
from .world import World


def test_without_workers_a_job_waits_and_says_why_and_a_cancel_refunds_it_all(quiet: World) -> None:
    models.write_gpt2(quiet.folder / "models" / "gpt2")
    models.write_chat(quiet.folder / "chat.jsonl")
    before = quiet.balance()
    job = quiet.submit(write_sft(quiet.folder))
    quiet.until(lambda: quiet.ask("job", "why", job)["code"] == "shard.no_workers", "the job to wait for a worker")
    why = quiet.ask("job", "why", job)
    assert why["state"] == "running"
    assert "shardwork-worker start" in why["next_step"]
    held = quiet.balance()["held_msat"]
    shown = quiet.ask("job", "show", job)
    assert held == shown["reserved_msat"] == shown["budget_msat"] > 0
    assert quiet.run("job", "cancel", job).exit_code == 0
    after = quiet.ask("job", "show", job)
    assert after["state"] == "cancelled"
    assert (after["spent_msat"], after["reserved_msat"], after["refunded_msat"]) == (0, 0, shown["budget_msat"])
    assert quiet.balance() == before
    assert quiet.run("job", "watch", job).exit_code == 8
