"""A worker that cheats, over the wire: refused with a reason, nothing changes, others go on and the books balance."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from shardwork import work
from shardwork.errors import InvalidInput, LimitExceeded, ShardworkError, StaleLease
from shardwork.identity.envelope import seal
from shardwork.identity.keys import SigningKey
from shardwork.identity.role import Role
from shardwork.transfer import download
from shardwork.v1 import jobs_pb2, types_pb2, work_pb2
from shardwork_coordinator.records import Event, Job, Lease, Replica, ReplicaState, Shard, Stage, Transfer, TransferKind
from shardwork_coordinator.rpc import attach
from shardwork_coordinator.rpc import results as rpc_results
from shardwork_coordinator.store.base import Transaction

from .market import Attached, Market, Party

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(slots=True)
class Scene:
    """A job of one shard, a worker that holds it, and one that only watches."""

    place: Market
    requester: Party
    job: str
    holder: Party
    stream: Attached
    offer: work_pb2.LeaseOffer
    thief: Party

    async def replica(self) -> Replica:
        found = await self.place.read(lambda tx: tx.get(Replica, self.offer.shard_id, 0))
        assert found is not None
        return found

    async def honest_end(self) -> None:
        """The holder finishes, is paid once, and the job succeeds."""
        result = await self.holder.result(self.offer)
        await self.holder.commit(result)
        answer = await self.holder.hand_in(result)
        assert (answer.state, answer.paid_msat) == ("accepted", self.offer.price_msat)
        await self.succeeds()

    async def succeeds(self, *, paid: int = 1) -> None:
        job = await self.place.until(lambda tx: ended(tx, self.job))
        assert job.state == "succeeded"
        assert await self.place.read(lambda tx: len(payments(tx, self.job))) == paid


def ended(tx: Transaction, job_id: str) -> Job | None:
    job = tx.get(Job, job_id)
    return job if job is not None and job.ended_ms else None


def payments(tx: Transaction, job_id: str) -> list[Transfer]:
    """Shard pay that was posted for the job."""
    posts = tx.find(Transfer, reason="shard")
    return [one for one in posts if one.kind is TransferKind.POST and one.reference.startswith(f"{job_id}/")]


@pytest_asyncio.fixture(loop_scope="module")
async def scene(place: Market) -> AsyncIterator[Scene]:
    requester = await place.party(Role.REQUESTER, sats=100)
    holder, thief = await place.party(Role.WORKER), await place.party(Role.WORKER)
    stream = await holder.attach()
    job = await requester.submit()
    yield Scene(place, requester, job, holder, stream, await stream.offer(), thief)


async def assert_refused(scene: Scene, party: Party, method: str, request: object, code: str) -> None:
    """Refused with this code, and not one row of the market changed."""
    before = await scene.place.state()
    error = await party.refused(getattr(party.session.work, method), request)
    assert error.code == code, error
    assert await scene.place.state() == before


# ---- submissions ----------------------------------------------------------------------------------------------------


async def test_nothing_is_judged_that_was_not_committed(scene: Scene) -> None:
    result = await scene.holder.result(scene.offer)
    request = scene.holder.submit_request(result)
    await assert_refused(scene, scene.holder, "SubmitResult", request, "result.not_committed")
    await scene.honest_end()


async def test_what_was_committed_can_not_be_exchanged(scene: Scene) -> None:
    first, second = await scene.holder.result(scene.offer), await scene.holder.result(scene.offer, words=7.0)
    await scene.holder.commit(first)
    other = scene.holder.submit_request(second)
    await assert_refused(scene, scene.holder, "SubmitResult", other, "result.not_committed")
    again = scene.holder.commit_request(second)
    await assert_refused(scene, scene.holder, "CommitResult", again, "lease.already_committed")
    await scene.honest_end()


async def test_another_workers_lease_can_not_be_used(scene: Scene) -> None:
    stolen = await scene.thief.result(scene.offer)
    await assert_refused(scene, scene.thief, "CommitResult", scene.thief.commit_request(stolen), "lease.stale")
    await assert_refused(scene, scene.thief, "SubmitResult", scene.thief.submit_request(stolen), "lease.stale")
    release = work_pb2.ReleaseLeaseRequest(lease_id=scene.offer.lease_id, why=types_pb2.Why(code="worker.paused"))
    await assert_refused(scene, scene.thief, "ReleaseLease", release, "lease.stale")
    await scene.honest_end()


async def test_an_envelope_of_another_key_is_refused_whoever_sends_it(scene: Scene) -> None:
    result = await scene.holder.result(scene.offer)
    for request in (scene.thief.commit_request(result), Party(scene.place, scene.thief.session, SigningKey.generate())):
        envelope = request if isinstance(request, work_pb2.CommitResultRequest) else request.commit_request(result)
        error = await scene.holder.refused(scene.holder.session.work.CommitResult, envelope)
        assert error.code.startswith("envelope."), error
    overheard = scene.holder.submit_request(result)
    error = await scene.thief.refused(scene.thief.session.work.SubmitResult, overheard)
    assert error.code.startswith("envelope."), error
    await scene.honest_end()


async def test_an_envelope_of_another_kind_or_with_more_in_it_is_refused(scene: Scene) -> None:
    result = await scene.holder.result(scene.offer)
    commitment = scene.holder.commitment(result).SerializeToString()
    crossed = work_pb2.SubmitResultRequest(envelope=seal(scene.holder.key, work.COMMITMENT_TYPE, commitment))
    await assert_refused(scene, scene.holder, "SubmitResult", crossed, "envelope.wrong_type")
    smuggled = seal(scene.holder.key, work.COMMITMENT_TYPE, commitment + b"\xf8\x07\x01")
    request = work_pb2.CommitResultRequest(envelope=smuggled)
    await assert_refused(scene, scene.holder, "CommitResult", request, "wire.unknown_field")
    await scene.honest_end()


@pytest.mark.parametrize(
    ("lease", "code"),
    [
        ("", "lease.bad_id"),
        ("nonsense", "lease.bad_id"),
        ("a#1.99999999999999999999999", "lease.bad_id"),
        ("a#²." + "1", "lease.bad_id"),
        ("x" * 10_000 + "#0.1", "lease.bad_id"),
        ("a/b/r0/map/s0#0.1", "lease.stale"),
    ],
)
async def test_a_lease_that_never_was_is_refused_in_every_call(scene: Scene, lease: str, code: str) -> None:
    result = await scene.holder.result(scene.offer)
    result.lease_id = lease
    await assert_refused(scene, scene.holder, "CommitResult", scene.holder.commit_request(result), code)
    await assert_refused(scene, scene.holder, "SubmitResult", scene.holder.submit_request(result), code)
    await assert_refused(scene, scene.holder, "ReleaseLease", work_pb2.ReleaseLeaseRequest(lease_id=lease), code)


async def test_another_epoch_or_offer_of_the_own_lease_is_refused(scene: Scene) -> None:
    result = await scene.holder.result(scene.offer)
    stale = work_pb2.Submission.FromString(result.SerializeToString())
    stale.lease_id = scene.offer.lease_id.rpartition(".")[0] + ".2"
    await assert_refused(scene, scene.holder, "CommitResult", scene.holder.commit_request(stale), "lease.stale")
    result.lease_sha256 = bytes(32)
    await assert_refused(scene, scene.holder, "CommitResult", scene.holder.commit_request(result), "result.wrong_offer")
    await scene.honest_end()


async def test_a_submission_counts_on_its_own_lease_only(place: Market) -> None:
    requester = await place.party(Role.REQUESTER, sats=100)
    workers = [await place.party(Role.WORKER) for _ in range(2)]
    streams = [await worker.attach() for worker in workers]
    job = await requester.submit(parts=2)
    offers = [await stream.offer() for stream in streams]
    results = [await worker.result(offer) for worker, offer in zip(workers, offers, strict=True)]
    # the first worker replays its own result under the second one's lease, and the second one's under its own
    crossed = work_pb2.Submission.FromString(results[0].SerializeToString())
    crossed.lease_id = offers[1].lease_id
    error = await workers[0].refused(workers[0].session.work.CommitResult, workers[0].commit_request(crossed))
    assert error.code == "lease.stale"
    borrowed = work_pb2.Submission.FromString(results[0].SerializeToString())
    borrowed.outputs[0].artifact_id = await workers[1].upload({"counts.json": '{"mine": 2}'}, purpose="input")
    await workers[0].commit(borrowed)
    error = await workers[0].refused(workers[0].session.work.SubmitResult, workers[0].submit_request(borrowed))
    assert error.code == "result.not_uploaded"
    await workers[1].commit(results[1])
    assert (await workers[1].hand_in(results[1])).state == "accepted"
    assert len(await place.read(lambda tx: payments(tx, job))) == 1


async def test_outputs_that_were_never_uploaded_are_not_paid_until_they_are(scene: Scene) -> None:
    result = await scene.holder.result(scene.offer)
    result.outputs[0].artifact_id = "ab" * 32
    await scene.holder.commit(result)
    request = scene.holder.submit_request(result)
    await assert_refused(scene, scene.holder, "SubmitResult", request, "result.not_uploaded")


async def test_a_result_handed_in_twice_at_once_is_paid_once_with_one_answer(scene: Scene) -> None:
    result = await scene.holder.result(scene.offer)
    await scene.holder.commit(result)
    answers = await asyncio.gather(*(scene.holder.hand_in(result) for _ in range(8)))
    assert {(answer.state, answer.paid_msat) for answer in answers} == {("accepted", scene.offer.price_msat)}
    await scene.succeeds()
    assert (await scene.holder.hand_in(result)).state == "accepted"


async def test_a_refused_result_is_refused_again_and_never_paid(scene: Scene) -> None:
    result = await scene.holder.result(scene.offer, words=-1.0)
    await scene.holder.commit(result)
    first, again = await scene.holder.hand_in(result), await scene.holder.hand_in(result)
    assert (first.state, first.why.code, first.paid_msat) == ("rejected", "check.metrics", 0)
    assert again == first
    assert await scene.place.read(lambda tx: payments(tx, scene.job)) == []


async def test_a_lease_that_expired_is_worth_nothing_and_the_next_worker_is_paid(scene: Scene) -> None:
    late = await scene.holder.result(scene.offer)
    await scene.holder.commit(late)
    held = await scene.replica()

    def expire(tx: Transaction) -> None:
        tx.put(replace(held, expires_ms=1))

    other = await scene.thief.attach()
    await scene.place.serving.engine.store.write(expire)
    offer = await other.offer()
    assert offer.shard_id == scene.offer.shard_id and offer.epoch == scene.offer.epoch + 1
    await assert_refused(scene, scene.holder, "CommitResult", scene.holder.commit_request(late), "lease.stale")
    await assert_refused(scene, scene.holder, "SubmitResult", scene.holder.submit_request(late), "lease.stale")
    result = await scene.thief.result(offer)
    await scene.thief.commit(result)
    assert (await scene.thief.hand_in(result)).state == "accepted"
    await scene.succeeds()


# ---- absurd values --------------------------------------------------------------------------------------------------


async def test_names_and_lists_without_measure_are_refused(scene: Scene) -> None:
    many = await scene.holder.result(scene.offer)
    many.metrics.extend(types_pb2.Metric(name=f"m{number}", value=0.0) for number in range(1_001))
    await assert_refused(scene, scene.holder, "SubmitResult", scene.holder.submit_request(many), "result.too_many")
    for name in ("n" * 10_000, "", "bad\x1b[2Jname"):
        long = await scene.holder.result(scene.offer)
        long.metrics.append(types_pb2.Metric(name=name, value=0.0))
        await assert_refused(scene, scene.holder, "SubmitResult", scene.holder.submit_request(long), "result.bad_name")
    twice = await scene.holder.result(scene.offer)
    twice.metrics.append(types_pb2.Metric(name="words", value=1e9))
    await assert_refused(scene, scene.holder, "SubmitResult", scene.holder.submit_request(twice), "work.repeated_name")
    odd = await scene.holder.result(scene.offer, words=math.nan)
    await assert_refused(scene, scene.holder, "SubmitResult", scene.holder.submit_request(odd), "result.not_finite")
    await scene.honest_end()


async def test_numbers_that_no_column_holds_are_cut_to_what_can_be(scene: Scene) -> None:
    result = await scene.holder.result(scene.offer)
    result.compute_ms = result.bytes_up = result.bytes_down = 2**64 - 1
    await scene.holder.commit(result)
    assert (await scene.holder.hand_in(result)).state == "accepted"
    lease = await scene.place.read(lambda tx: tx.get(Lease, scene.offer.lease_id))
    assert lease is not None and 0 <= lease.compute_ms < 10 * 60 * 1000
    await scene.succeeds()


async def test_what_a_worker_says_reaches_its_requester_short_and_printable(scene: Scene) -> None:
    said = types_pb2.Why(
        code="WORKER\n", sentence="\x1b[31m" + "a" * 100_000, evidence={str(n): "b" * 9_000 for n in range(99)}
    )
    release = work_pb2.ReleaseLeaseRequest(lease_id=scene.offer.lease_id, why=said)
    await scene.holder.session.call(scene.holder.session.work.ReleaseLease, release)
    events = await scene.place.read(
        lambda tx: [one for one in tx.find(Event, job_id=scene.job) if one.kind == "shard.expired"]
    )
    assert len(events) == 1
    assert len(events[0].sentence) < 600 and events[0].sentence.isprintable()
    assert len(events[0].evidence_json) < 4_000
    shard = await scene.place.read(lambda tx: tx.get(Shard, scene.offer.shard_id))
    assert shard is not None and "worker.gave_back" in shard.why_json and "\\u001b" not in shard.why_json


async def test_giving_back_for_free_ends(place: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_results, "FREE_RELEASES", 2)
    requester, worker = await place.party(Role.REQUESTER, sats=100), await place.party(Role.WORKER)
    stream = await worker.attach()
    job = await requester.submit()
    for _ in range(2 + 4):
        offer = await stream.offer()
        release = work_pb2.ReleaseLeaseRequest(lease_id=offer.lease_id, why=types_pb2.Why(code="worker.paused"))
        await worker.session.call(worker.session.work.ReleaseLease, release)
    row = await place.read(lambda tx: tx.get(Job, job))
    assert row is not None and row.state == "paused" and "shard.exhausted" in row.why_json


# ---- streams --------------------------------------------------------------------------------------------------------


async def test_a_second_stream_of_a_key_replaces_the_first_and_keeps_the_lease(scene: Scene) -> None:
    second = await scene.holder.attach()
    assert (await second.offer()).lease_id == scene.offer.lease_id
    await scene.stream.ended()
    assert (await scene.replica()).state is ReplicaState.LEASED
    await scene.honest_end()


async def test_of_two_workers_with_one_key_the_newest_wins_and_the_other_is_told(scene: Scene) -> None:
    def hello(instance: str) -> work_pb2.Hello:
        capability = work_pb2.Capability(device="cpu", recipes=["count"])
        return work_pb2.Hello(capability=capability, accepting=True, instance=instance)

    first = await scene.holder.attach(hello=hello("one"))
    assert (await first.offer()).lease_id == scene.offer.lease_id
    again = await scene.holder.attach(hello=hello("one"))  # a reconnect of the same process
    with pytest.raises(EOFError):
        await first.next("nothing")
    second = await scene.holder.attach(hello=hello("two"))
    assert (await second.offer()).lease_id == scene.offer.lease_id
    with pytest.raises(ShardworkError) as told:
        await again.next("nothing")
    assert told.value.code == "attach.replaced" and "SHARDWORK_HOME" in told.value.why.next_step
    await scene.honest_end()  # checks that the lease was paid once


async def test_foreign_leases_claimed_in_a_hello_are_revoked_and_stay_their_holders(scene: Scene) -> None:
    before = await scene.replica()
    claims = [work_pb2.LeaseStatus(lease_id=scene.offer.lease_id, progress=1.0), work_pb2.LeaseStatus(lease_id="x")]
    liar = await scene.thief.attach(hello=work_pb2.Hello(running=claims, accepting=False))
    revoked = {(await liar.next("revoke")).revoke.lease_id for _ in claims}
    assert revoked == {scene.offer.lease_id, "x"}
    assert await scene.replica() == before
    await scene.honest_end()


async def test_heartbeats_for_foreign_leases_change_nothing_and_absurd_progress_is_bounded(scene: Scene) -> None:
    liar = await scene.thief.attach(hello=work_pb2.Hello(accepting=False))
    status = work_pb2.LeaseStatus(lease_id=scene.offer.lease_id, progress=0.9, step="stolen")
    await liar.say(heartbeat=work_pb2.Heartbeat(running=[status]))
    for said, kept in ((5.0, 1.0), (-1.0, 0.0), (math.nan, 0.0), (0.25, 0.25)):
        mine = work_pb2.LeaseStatus(
            lease_id=scene.offer.lease_id, progress=said, loss=math.inf, step=f"\x07{said}" + "s" * 500
        )
        await scene.stream.say(heartbeat=work_pb2.Heartbeat(running=[mine], accepting=True))
        row = await scene.place.until(lambda tx, said=said: beaten(tx, scene.offer.shard_id, str(said)))  # type: ignore[misc]
        assert (row.progress, row.loss) == (kept, None)
        assert len(row.step) <= 40 and row.step.isprintable()
    await scene.honest_end()


def beaten(tx: Transaction, shard_id: str, said: str) -> Replica | None:
    row = tx.get(Replica, shard_id, 0)
    return row if row is not None and said in row.step else None


async def test_a_stream_that_talks_nonsense_is_ended_with_the_reason(place: Market) -> None:
    worker = await place.party(Role.WORKER)
    stream = await worker.attach()
    await stream.say(heartbeat=work_pb2.Heartbeat(running=[work_pb2.LeaseStatus(lease_id="nonsense")]))
    with pytest.raises(InvalidInput, match="lease id"):
        await stream.next("offer")
    crowd = [work_pb2.LeaseStatus(lease_id=f"a#0.{number}") for number in range(65)]
    rude = await worker.attach(hello=work_pb2.Hello(running=crowd), wait=False)
    with pytest.raises(InvalidInput, match="so many"):
        await rude.next("welcome")
    mute = await worker.attach(wait=False)
    await mute.leave()
    assert [link.worker_id for link in place.serving.engine.links.all()].count(worker.id) == 0


async def test_a_stream_without_a_hello_is_not_waited_for(place: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "HELLO_S", 0.05)
    worker = await place.party(Role.WORKER)
    stream = Attached(worker)
    place.streams.append(stream)
    await stream.open()
    assert (await stream.ended()).name == "UNAVAILABLE"


async def test_a_silent_stream_is_ended_and_granted_nothing_more(
    place: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "SILENT_LEASES", 0.01)
    stream = await (await place.party(Role.WORKER)).attach()
    assert (await stream.ended()).name == "UNAVAILABLE"
    await place.until(lambda tx: not place.serving.engine.links.all())
    assert place.serving.engine.links.accepting() == []


async def test_a_capability_of_megabytes_is_kept_short(place: Market) -> None:
    worker, operator = await place.party(Role.WORKER), await place.operator()
    capability = work_pb2.Capability(device_name="\x1b" + "n" * 3_000_000, recipes=["r" * 1_000] * 200)
    await worker.attach(hello=work_pb2.Hello(capability=capability, software_version="v" * 10_000))
    # the welcome is sent before the worker counts as attached
    link = await place.until(lambda _: place.serving.engine.links.get(worker.id))
    assert len(link.capability.device_name) <= 80 and len(link.capability.recipes) <= 64
    from shardwork.v1 import operator_pb2

    listed = await operator.session.call(operator.session.operator.ListWorkers, operator_pb2.ListWorkersRequest())
    assert listed.ByteSize() < 100_000


async def test_a_worker_that_hoards_holds_one_shard_and_the_others_are_done_by_others(place: Market) -> None:
    requester = await place.party(Role.REQUESTER, sats=100)
    hoarder, honest = await place.party(Role.WORKER), await place.party(Role.WORKER)
    greedy, diligent = await hoarder.attach(), await honest.attach()
    job = await requester.submit(parts=3)
    await greedy.offer()
    for _ in range(2):
        offer = await diligent.offer()
        result = await honest.result(offer)
        await honest.commit(result)
        assert (await honest.hand_in(result)).state == "accepted"
    held = await place.read(lambda tx: tx.find(Replica, job_id=job, state=["leased", "committed"]))
    assert [one.worker_id for one in held] == [hoarder.id]


# ---- uploads --------------------------------------------------------------------------------------------------------


async def test_another_kind_of_output_is_refused_by_the_check_and_not_paid(scene: Scene) -> None:
    result = await scene.holder.result(scene.offer)
    evil = await scene.holder.upload({"counts.json": "{}", "run.py": "print()"}, purpose=scene.offer.lease_id)
    result.outputs[0].artifact_id = evil
    await scene.holder.commit(result)
    answer = await scene.holder.hand_in(result)
    assert (answer.state, answer.why.code) == ("rejected", "check.outputs")
    assert await scene.place.read(lambda tx: payments(tx, scene.job)) == []


async def test_a_token_alone_forges_no_work(scene: Scene) -> None:
    """Whoever steals a token can't sign: the lease's holder must have signed each result itself."""
    ((_, token),) = await scene.holder.session.metadata()
    assert base64.urlsafe_b64decode(token.removeprefix("Bearer "))
    forged = Party(scene.place, scene.holder.session, SigningKey.generate())
    result = await scene.holder.result(scene.offer)
    error = await forged.refused(scene.holder.session.work.CommitResult, forged.commit_request(result))
    assert error.code.startswith("envelope.") and not isinstance(error, StaleLease | LimitExceeded)
    views = await scene.place.read(lambda tx: tx.find(Lease, job_id=scene.job))
    assert [one.state for one in views] == [ReplicaState.LEASED]
    assert jobs_pb2.GetJobRequest(job_id=scene.job).job_id == scene.job


@pytest.mark.parametrize("lie", ["[" * 40, '{"one": "x"}' + " " * 28, '{"one": ' + "9" * 400 + "}"])
async def test_counts_that_nothing_can_join_cost_the_owner_nothing(scene: Scene, lie: str) -> None:
    """One worker could fail a whole job: its result passed the light check, and then no join could read it."""
    result = await scene.holder.result(scene.offer)
    result.outputs[0].artifact_id = await scene.holder.upload({"counts.json": lie}, purpose=scene.offer.lease_id)
    await scene.holder.commit(result)
    assert (await scene.holder.hand_in(result)).state == "accepted"
    await scene.succeeds()
    stage = await scene.place.read(lambda tx: tx.find(Stage, job_id=scene.job))
    report = json.loads(stage[0].outputs_json)["words.report"]["artifact_id"]
    folder = scene.place.folder / "joined" / report
    if not folder.exists():
        await download(scene.requester.session, report, folder)
    said = json.loads((folder / "counts.json").read_text())
    assert said["counts"] == {"three": 24, "two": 16, "one": 8} and said["parts_recounted"] == [0]
