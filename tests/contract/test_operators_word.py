"""What the operator decides of a worker, on the wire: streams, results and keys, without a restart of either side."""

from __future__ import annotations

import pytest

from shardwork.errors import NotAllowed, StaleLease
from shardwork.identity.role import Role
from shardwork.v1 import work_pb2
from shardwork_coordinator.queueing import standing
from shardwork_coordinator.records import Job, Standing
from shardwork_coordinator.records import Party as PartyRow

from .market import Market, Party

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def decide(place: Market, party: Party, wanted: Standing) -> None:
    """As a command beside the coordinator does: nothing but the database learns it."""
    await place.serving.engine.store.write(lambda tx: standing.change(tx, party.id, wanted, "odd results"))


async def test_a_drained_worker_hands_in_what_it_holds_and_hears_why_there_is_no_more(place: Market) -> None:
    requester = await place.party(Role.REQUESTER, sats=100)
    worker = await place.party(Role.WORKER)
    stream = await worker.attach()
    await requester.submit()
    offer = await stream.offer()
    await decide(place, worker, Standing.DRAINED)
    idle = (await stream.next("idle")).idle
    assert (idle.why.code, idle.why.evidence["reason"]) == ("worker.drained_by_operator", "odd results")
    result = await worker.result(offer)
    await worker.commit(result)
    answer = await worker.hand_in(result)
    assert (answer.state, answer.paid_msat) == ("accepted", offer.price_msat)
    assert await place.until(lambda tx: tx.find(Job, id=offer.job_id, state="succeeded"))


async def test_a_quarantined_workers_lease_is_revoked_and_goes_to_another(place: Market) -> None:
    requester = await place.party(Role.REQUESTER, sats=100)
    worker = await place.party(Role.WORKER)
    stream = await worker.attach()
    await requester.submit()
    offer = await stream.offer()
    await decide(place, worker, Standing.QUARANTINED)
    revoked = (await stream.next("revoke")).revoke
    assert (revoked.lease_id, revoked.why.code) == (offer.lease_id, standing.TAKEN_BACK)
    late = await worker.refused(worker.session.work.CommitResult, worker.commit_request(await worker.result(offer)))
    assert isinstance(late, StaleLease) and late.code == "lease.stale"
    other = await place.party(Role.WORKER)
    assert (await (await other.attach()).offer()).shard_id == offer.shard_id


async def test_a_banned_workers_stream_ends_with_the_reason_and_its_key_is_refused(place: Market) -> None:
    worker = await place.party(Role.WORKER)
    stream = await worker.attach()
    await decide(place, worker, Standing.BANNED)
    with pytest.raises(NotAllowed) as ended:
        await stream.next("offer")
    assert ended.value.code == "auth.revoked" and ended.value.why.evidence["reason"] == "odd results"
    again = await worker.attach(wait=False)
    with pytest.raises(NotAllowed) as refused:
        await again.next("welcome")
    assert refused.value.code == "auth.revoked"


async def test_an_owner_says_whether_the_worker_is_listed(place: Market) -> None:
    worker = await place.party(Role.WORKER)
    capability = work_pb2.Capability(device="cpu", recipes=["count"])
    for listed in (True, False):
        await worker.attach(hello=work_pb2.Hello(capability=capability, accepting=True, listed=listed))
        row = await place.read(lambda tx: tx.get(PartyRow, worker.id))
        assert row is not None and row.listed is listed
