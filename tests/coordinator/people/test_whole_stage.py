"""People answer a whole stage through the real routes; they are paid, and their votes become rows."""

from __future__ import annotations

from shardwork_coordinator.records import JobState, Shard, ShardState

from .stand import Stand, person


async def test_a_stage_is_answered_paid_and_becomes_preferences(stand: Stand) -> None:
    await stand.submit()
    anna, bert = person(stand, 1), person(stand, 2)
    for one in (anna, bert):
        await one.join(payout="ann@example.org")
        assert await one.work() > 6
    await stand.later()
    await stand.later()
    shards = await stand.all(Shard, phase="ask")
    assert {one.state for one in shards} == {ShardState.DONE}
    await stand.effects()
    job = await stand.job()
    assert job.state is JobState.SUCCEEDED, job.why_json
    await stand.check_books()
    rows = await stand.artifact("rows", "preferences.jsonl")
    assert len(rows) == 6
    assert all(row["chosen"].startswith("a long") and row["confidence"] == 1.0 for row in rows)
    votes = await stand.artifact("votes", "votes.jsonl")
    assert len(votes) == 12
    assert {vote["annotator"] for vote in votes} == {anna.id, bert.id}
