"""The worker's side of the wire: the Attach stream, and Commit -> Draw -> Submit for each lease.

Handlers verify the envelope, the lease's epoch and the root, in the same transaction that records the result; what a
result means is `machine`. Thin servicer at the end.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

from shardwork import wire, work
from shardwork.errors import Conflict, InvalidInput, ShardworkError, StaleLease, Unreachable
from shardwork.identity.role import Role
from shardwork.ids import LeaseId
from shardwork.protocol import TOKEN_LIFETIME_S
from shardwork.recipes import recipe
from shardwork.recipes.abilities import known
from shardwork.recipes.base import Reported
from shardwork.v1 import types_pb2, work_pb2, work_pb2_grpc
from shardwork.why import Why

from ..artifacts import ArtifactStore
from ..engine import Engine, advance, found, live_replica, parse_lease, slice_of_replica, write_note
from ..events import LeaseLost, Push, ResultCommitted, ResultSubmitted
from ..links import Link, message, to_hello
from ..machine.attempts import lease_id, progressed
from ..machine.states import LIVE
from ..queueing.history import BLAMELESS, JOB_ENDED
from ..records import Artifact, ArtifactState, Attachment, Lease, Party, Replica, ReplicaState, Shard
from ..settings import Settings
from ..store.base import Transaction
from ..store.columns import INT_MAX
from .auth import Caller, Context, Gate, Tokens

#: one row at a time did not fit: the worker gets nothing of that size any more
OUT_OF_MEMORY = "trainer.out_of_memory"
#: metrics and outputs a submission may name, and letters of such a name
MOST_METRICS, MOST_OUTPUTS, LONGEST_NAME = 1_000, 64, 100
#: artifacts that a worker may say it holds, and letters of an id
MOST_HOLDINGS, ARTIFACT_ID_LETTERS = 64, 64
#: leases that one message may speak of
MOST_LEASES = 64
#: bytes that one shard may claim to have moved; only shown, but summed up in a column of 64 bits
MOST_BYTES = 1 << 50
#: a stream must begin with its Hello within this time, and goes on with heartbeats
HELLO_S = 10.0
#: a stream that is silent for so many times a lease's time to live is ended
SILENT_LEASES = 3
#: so often may one worker give the same shard back for free
FREE_RELEASES = 3
CODE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
GONE = Why(code="lease.stale", sentence="This lease was given to another worker, or its job ended.")
REFUSED = Why(code="result.refused", sentence="The result was refused.")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkDesk:
    """What the handlers need."""

    engine: Engine
    artifacts: ArtifactStore
    tokens: Tokens
    settings: Settings
    #: host:port of every coordinator of the cluster, this one first
    addresses: Callable[[], Sequence[str]] = tuple
    #: called when a worker came or left
    moved: Callable[[], None] = lambda: None
    #: the loop itself holds tasks only weakly
    leaving: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])


# ---- attach ---------------------------------------------------------------------------------------------------------


async def attach(
    requests: AsyncIterator[work_pb2.AttachRequest], caller: Caller, desk: WorkDesk
) -> AsyncGenerator[work_pb2.AttachResponse, None]:
    """Serves one worker's stream: welcomes, re-sends what it should hold, then pushes until either side leaves."""
    try:
        first = await asyncio.wait_for(anext(aiter(requests), None), HELLO_S)
    except TimeoutError:
        raise Unreachable("attach.silent", "The stream never sent a Hello.", waited_s=HELLO_S) from None
    if first is None or first.WhichOneof("message") != "hello":
        raise InvalidInput("attach.no_hello", "The first message of an Attach stream must be a Hello.")
    link = await _greet(first.hello, caller, desk)
    yield work_pb2.AttachResponse(
        welcome=work_pb2.Welcome(
            heartbeat_seconds=desk.settings.heartbeat_s, worker_id=caller.party_id, addresses=desk.addresses()
        )
    )
    for push in await _reconcile(first.hello, caller, desk):
        yield message(push)
    desk.engine.links.attach(link)
    desk.engine.work_ready.set()
    desk.moved()
    listener = asyncio.create_task(_listen(requests, link, caller, desk))
    renewer = asyncio.create_task(_renew(link, caller, desk))
    try:
        while (pushed := await link.queue.get()) is not None:
            yield pushed
        if listener.done() and isinstance(refused := listener.exception(), ShardworkError):
            raise refused
        if link.replaced:
            raise Conflict(
                "attach.replaced",
                "Another worker with this key attached, and took over what this one had in hand.",
                next_step="Give each worker a SHARDWORK_HOME, and so a key, of its own. To take over again: "
                "shardwork-worker resume",
            )
    finally:
        for task in (listener, renewer):
            task.cancel()
        if desk.engine.links.detach(link):
            # not awaited as part of a cancelled call, or the leases would keep their full time to live
            leaving = asyncio.get_running_loop().create_task(_left(link, desk))
            desk.leaving.add(leaving)
            leaving.add_done_callback(desk.leaving.discard)


async def _greet(hello: work_pb2.Hello, caller: Caller, desk: WorkDesk) -> Link:
    now_ms = desk.engine.clock.now_ms()
    _check_count(hello.running)
    link = Link(
        worker_id=caller.party_id,
        name="",
        capability=_shortened(hello.capability),
        minimum_msat=min(hello.minimum_msat, INT_MAX),
        minimum_msat_per_tera=hello.minimum_msat_per_tera_unit,
        donates=hello.donates,
        holds=_holdings(hello.holdings),
        accepting=hello.accepting,
        reference=False,
        instance=plain(hello.instance, 40),
        since_ms=now_ms,
        last_seen_ms=now_ms,
    )

    def seen(tx: Transaction) -> Party | None:
        party = tx.get(Party, caller.party_id)
        if party is not None:
            party = replace(party, last_seen_ms=now_ms, software_version=plain(hello.software_version, 64))
            tx.put(party)
        _note_attached(tx, link, desk)
        return party

    party = await desk.engine.store.write(seen)
    if party is not None:
        link.name, link.reference = party.name, party.reference
    return link


def _note_attached(tx: Transaction, link: Link, desk: WorkDesk) -> None:
    """For the other coordinators, if there may be any."""
    coordinator = desk.engine.links.coordinator
    if coordinator:
        tx.put(
            Attachment(
                worker_id=link.worker_id,
                coordinator=coordinator,
                hello=to_hello(link),
                minimum_msat=link.minimum_msat,
                accepting=link.accepting,
                since_ms=link.since_ms,
            )
        )


def _note_left(tx: Transaction, link: Link, coordinator: str) -> bool:
    """False when the worker is attached again meanwhile, here or elsewhere."""
    row = tx.get(Attachment, link.worker_id)
    if not coordinator or row is None:
        return True
    if (row.coordinator, row.since_ms) != (coordinator, link.since_ms):
        return False
    tx.put(replace(row, coordinator=""))
    return True


async def _reconcile(hello: work_pb2.Hello, caller: Caller, desk: WorkDesk) -> list[Push]:
    """After a reconnect: leases the worker still runs live on, those it lost are offered again, others are revoked."""
    running = {status.lease_id for status in hello.running}
    expires_ms = desk.engine.clock.now_ms() + desk.settings.lease_ttl_s * 1000

    def work_(tx: Transaction) -> list[Push]:
        held = tx.find(Replica, worker_id=caller.party_id, state=[str(state) for state in LIVE])
        for replica in held:
            tx.put(replace(replica, expires_ms=expires_ms))
        mine = {lease_id(replica): replica for replica in held}
        again = [
            Push(worker_id=caller.party_id, lease_id=lease, kind="offer", offer=replica.offer)
            for lease, replica in mine.items()
            if lease not in running
        ]
        dropped = [
            Push(worker_id=caller.party_id, lease_id=lease, kind="revoke", why=GONE)
            for lease in sorted(running - set(mine))
        ]
        return again + dropped

    return await desk.engine.store.write(work_)


async def _listen(requests: AsyncIterator[work_pb2.AttachRequest], link: Link, caller: Caller, desk: WorkDesk) -> None:
    """Raises what the worker did wrong; a silent stream is ended, so that nothing is granted to nobody."""
    silence_s = SILENT_LEASES * desk.settings.lease_ttl_s
    incoming = aiter(requests)
    try:
        while (request := await asyncio.wait_for(anext(incoming, None), silence_s)) is not None:
            if request.WhichOneof("message") == "heartbeat":
                await heartbeat(request.heartbeat, link, caller, desk)
    except TimeoutError:
        raise Unreachable("attach.silent", "The stream sent no heartbeat for too long.", waited_s=silence_s) from None
    finally:
        link.end()


async def heartbeat(beat: work_pb2.Heartbeat, link: Link, caller: Caller, desk: WorkDesk) -> None:
    """Renews the leases it names. An idle worker's heartbeat touches memory only."""
    link.last_seen_ms = desk.engine.clock.now_ms()
    changed, link.accepting = link.accepting != beat.accepting, beat.accepting
    if changed:
        desk.engine.work_ready.set()
    if beat.HasField("holdings"):
        link.holds = _holdings(beat.holdings)
    if not beat.running and not (changed and desk.engine.links.coordinator):
        return
    _check_count(beat.running)
    expires_ms = link.last_seen_ms + desk.settings.lease_ttl_s * 1000

    def renew(tx: Transaction) -> list[Push]:
        gone: list[Push] = []
        row = tx.get(Attachment, caller.party_id) if changed else None
        if row is not None and (row.coordinator, row.since_ms) == (desk.engine.links.coordinator, link.since_ms):
            tx.put(replace(row, accepting=beat.accepting))
        for status in beat.running:
            identity = parse_lease(status.lease_id)
            replica = tx.get(Replica, identity.shard, identity.replica)
            is_held = replica is not None and replica.state in LIVE and replica.epoch == identity.epoch
            if replica is None or not is_held or replica.worker_id != caller.party_id:
                gone += _taken_back(tx, status.lease_id, caller)
                continue
            _note_progress(tx, replace(replica, expires_ms=expires_ms), status, link.last_seen_ms)
        return gone

    if gone := await desk.engine.store.write(renew):
        desk.engine.links.push(gone)
    if changed:
        desk.moved()


def _note_progress(tx: Transaction, replica: Replica, status: work_pb2.LeaseStatus, now_ms: int) -> None:
    """What a worker tells of its lease: kept in the replica's row, and a few times in the job's log."""
    told = replace(
        replica,
        progress=min(max(status.progress, 0.0), 1.0) if math.isfinite(status.progress) else 0.0,
        loss=status.loss if status.HasField("loss") and math.isfinite(status.loss) else replica.loss,
        step=plain(status.step, 40),
    )
    shard = tx.get(Shard, replica.shard_id) if told.progress > replica.progress else None
    if shard is not None:
        told, note = progressed(shard, told)
        if note is not None:
            write_note(tx, replica.job_id, note, now_ms)
    tx.put(told)


def _taken_back(tx: Transaction, name: str, caller: Caller) -> list[Push]:
    """Tells a worker again that its lease was taken back: another coordinator said so, and its notice may be lost."""
    lease = tx.get(Lease, name)
    if lease is None or lease.worker_id != caller.party_id or lease.state is not ReplicaState.EXPIRED:
        return []
    why = Why.from_json(lease.why_json) if lease.why_json else GONE
    return [Push(worker_id=caller.party_id, lease_id=name, kind="revoke", why=why)]


async def _renew(link: Link, caller: Caller, desk: WorkDesk) -> None:
    """A fresh token before the old one ends, for as long as the stream lives and the key is not revoked."""
    while True:
        await asyncio.sleep(TOKEN_LIFETIME_S / 2)
        party = await desk.engine.store.read(lambda tx: tx.get(Party, caller.party_id))
        if party is None or party.revoked:
            link.end()
            return
        token = desk.tokens.issue(caller.public_key, caller.role)
        renewal = work_pb2.TokenRenewal(token=token.text, expires_unix_ms=token.expires_ms)
        link.queue.put_nowait(work_pb2.AttachResponse(renewal=renewal))


async def _left(link: Link, desk: WorkDesk) -> None:
    """A broken stream shortens the worker's leases to the grace in which it may come back."""
    soonest_ms = desk.engine.clock.now_ms() + int(desk.settings.reconnect_grace_s * 1000)

    def shorten(tx: Transaction) -> None:
        if not _note_left(tx, link, desk.engine.links.coordinator):
            return
        for replica in tx.find(Replica, worker_id=link.worker_id, state=[str(state) for state in LIVE]):
            tx.put(replace(replica, expires_ms=min(replica.expires_ms, soonest_ms)))

    await desk.engine.store.write(shorten)
    desk.moved()


# ---- results --------------------------------------------------------------------------------------------------------


async def commit_result(
    request: work_pb2.CommitResultRequest, caller: Caller, desk: WorkDesk
) -> work_pb2.CommitResultResponse:
    """Binds the lease to an output root. The draw is empty until audits exist."""
    commitment = work.open_commitment(request.envelope, caller.public_key)
    world = desk.engine.world()

    def work_(tx: Transaction) -> list[Push]:
        replica = live_replica(tx, commitment.lease_id, caller.party_id)
        _check_offer(replica, commitment.lease_sha256)
        event = ResultCommitted(
            shard_id=replica.shard_id, number=replica.number, output_root=commitment.output_root.hex()
        )
        return advance(tx, slice_of_replica(tx, replica), event, world)

    desk.engine.after_commit(await desk.engine.store.write(work_))
    return work_pb2.CommitResultResponse()


async def submit_result(
    request: work_pb2.SubmitResultRequest, caller: Caller, desk: WorkDesk
) -> work_pb2.SubmitResultResponse:
    """Judges a committed result; a retry gets the first verdict again."""
    submission = work.open_submission(request.envelope, caller.public_key)
    _check_names(submission)
    parse_lease(submission.lease_id)
    root = work.submission_root(submission).hex()
    outputs = {output.name: output.artifact_id for output in submission.outputs}
    reported = await _reported(submission, desk) if await _may_submit(submission, caller, desk) else None
    world = desk.engine.world()

    def work_(tx: Transaction) -> tuple[list[Push], work_pb2.SubmitResultResponse]:
        if _is_decided(tx, submission, caller, root):
            return [], _answer(tx, submission.lease_id)
        replica = live_replica(tx, submission.lease_id, caller.party_id)
        _check_offer(replica, submission.lease_sha256)
        if replica.output_root != root:
            raise Conflict(
                "result.not_committed", "This is not the result that was committed.", lease=submission.lease_id
            )
        shard = tx.get(Shard, replica.shard_id)
        if shard is None or reported is None:
            raise StaleLease("lease.stale", "This lease is no longer yours.", lease=submission.lease_id)
        _check_uploaded(tx, outputs, caller)
        finding = recipe(shard.recipe).check(shard.phase, shard.order_json, reported)
        event = ResultSubmitted(
            shard_id=shard.id,
            number=replica.number,
            outputs=outputs,
            metrics=reported.metrics,
            compute_ms=min(submission.compute_ms, max(world.now_ms - replica.granted_ms, 0)),
            bytes_up=min(submission.bytes_up, MOST_BYTES),
            bytes_down=min(submission.bytes_down, MOST_BYTES),
            refused=finding.why,
        )
        pushes = advance(tx, slice_of_replica(tx, replica), event, world)
        return pushes, _answer(tx, submission.lease_id)

    pushes, answer = await desk.engine.store.write(work_)
    # the caller has its answer; nobody else is told of it by this stream
    desk.engine.after_commit([push for push in pushes if push.lease_id != submission.lease_id])
    return answer


async def release_lease(
    request: work_pb2.ReleaseLeaseRequest, caller: Caller, desk: WorkDesk
) -> work_pb2.ReleaseLeaseResponse:
    """Gives a lease back. A worker that paused or stopped costs the shard no attempt; a failure does."""
    why = reason(request.why)
    world = desk.engine.world()

    def work_(tx: Transaction) -> list[Push]:
        replica = live_replica(tx, request.lease_id, caller.party_id)
        before = tx.count(Lease, "state", shard_id=replica.shard_id, worker_id=caller.party_id, state="expired")
        blameless = why.code.startswith(BLAMELESS) and sum(before.values()) < FREE_RELEASES
        event = LeaseLost(shard_id=replica.shard_id, number=replica.number, why=why, costs_an_attempt=not blameless)
        return advance(tx, slice_of_replica(tx, replica), event, world)

    pushes = await desk.engine.store.write(work_)
    if why.code == OUT_OF_MEMORY:
        desk.engine.links.note_out_of_memory(caller.party_id, await _memory_of(request.lease_id, desk))
    desk.engine.after_commit([push for push in pushes if push.lease_id != request.lease_id])
    return work_pb2.ReleaseLeaseResponse()


async def _memory_of(lease: str, desk: WorkDesk) -> int:
    """What the lease's shard was estimated to need."""
    shard = await desk.engine.store.read(lambda tx: tx.get(Shard, parse_lease(lease).shard))
    return shard.memory_bytes if shard else 0


# ---- inside ---------------------------------------------------------------------------------------------------------


def plain(text: str, limit: int) -> str:
    """What a worker says, as it may be kept and shown to others: short, and nothing a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:limit])


def reason(said: types_pb2.Why) -> Why:
    """A worker's reason, shortened: requesters read it, and every row and event that holds it is sent to them."""
    # what ends a job is the coordinator's to say, and says nothing against a worker
    is_own = CODE.fullmatch(said.code) and not said.code.startswith(JOB_ENDED)
    code = said.code if is_own else "worker.gave_back"
    evidence = {plain(key, 40): plain(said.evidence[key], 200) for key in sorted(said.evidence)[:8]}
    return Why(
        code=code,
        sentence=plain(said.sentence, 400) or "its worker gave it back.",
        evidence=evidence,
        next_step=plain(said.next_step, 200),
    )


def _shortened(said: work_pb2.Capability) -> work_pb2.Capability:
    kept = work_pb2.Capability()
    kept.CopyFrom(said)
    kept.device, kept.device_name = plain(said.device, 40), plain(said.device_name, 80)
    kept.execution_class, kept.torch_version = plain(said.execution_class, 80), plain(said.torch_version, 40)
    kept.abilities[:] = sorted(known(said.abilities))
    kept.recipes[:] = [plain(name, 40) for name in said.recipes[:64]]
    return kept


def _holdings(said: work_pb2.Holdings) -> frozenset[str]:
    """A bounded hint; what is no artifact id matches none."""
    return frozenset(one for one in said.artifact_ids[:MOST_HOLDINGS] if len(one) == ARTIFACT_ID_LETTERS)


def _check_count(running: Sequence[work_pb2.LeaseStatus]) -> None:
    if len(running) > MOST_LEASES:
        raise InvalidInput("attach.too_many_leases", "No worker runs so many leases.", leases=len(running))


def _check_names(submission: work_pb2.Submission) -> None:
    if len(submission.metrics) > MOST_METRICS or len(submission.outputs) > MOST_OUTPUTS:
        raise InvalidInput("result.too_many", "A submission names too many outputs or metrics.")
    names = [*(metric.name for metric in submission.metrics), *(output.name for output in submission.outputs)]
    odd = next((name for name in names if not 0 < len(name) <= LONGEST_NAME or not name.isprintable()), None)
    if odd is not None:
        raise InvalidInput("result.bad_name", "A metric or an output has a name that can't be.", name=odd[:80])
    not_finite = next((metric.name for metric in submission.metrics if not math.isfinite(metric.value)), None)
    if not_finite is not None:
        raise InvalidInput("result.not_finite", f"Metric {not_finite!r} is not a finite number.", metric=not_finite)


def _check_offer(replica: Replica, lease_sha256: bytes) -> None:
    if replica.offer_sha256 != lease_sha256.hex():
        raise InvalidInput(
            "result.wrong_offer",
            "The result is bound to another offer than the one this lease was given by.",
            lease=lease_id(replica),
        )


def _check_uploaded(tx: Transaction, outputs: dict[str, str], caller: Caller) -> None:
    for name, artifact in outputs.items():
        row = tx.get(Artifact, artifact, caller.party_id)
        if row is None or row.state is not ArtifactState.STORED:
            raise Conflict(
                "result.not_uploaded",
                f"Output {name!r} is not stored yet.",
                artifact=artifact,
                next_step="Upload it, then submit again.",
            )


async def _may_submit(submission: work_pb2.Submission, caller: Caller, desk: WorkDesk) -> bool:
    """Whether the outputs are worth reading: only the lease's holder, only what it uploaded."""

    def look(tx: Transaction) -> bool:
        identity = LeaseId.parse(submission.lease_id)
        replica = tx.get(Replica, identity.shard, identity.replica)
        if replica is None or replica.worker_id != caller.party_id or replica.state not in LIVE:
            return False
        _check_uploaded(tx, {output.name: output.artifact_id for output in submission.outputs}, caller)
        return True

    return await desk.engine.store.read(look)


async def _reported(submission: work_pb2.Submission, desk: WorkDesk) -> Reported:
    manifests = {
        output.name: await asyncio.to_thread(desk.artifacts.manifest, output.artifact_id)
        for output in submission.outputs
    }
    return Reported(
        outputs={output.name: output.artifact_id for output in submission.outputs},
        output_bytes={name: manifest.total_bytes for name, manifest in manifests.items()},
        output_files={
            name: {entry.path: entry.size for entry in manifest.files} for name, manifest in manifests.items()
        },
        metrics={metric.name: metric.value for metric in submission.metrics},
    )


def _is_decided(tx: Transaction, submission: work_pb2.Submission, caller: Caller, root: str) -> bool:
    """Whether this very result was judged, or waits for others, already: a retry whose first answer was lost."""
    lease = tx.get(Lease, submission.lease_id)
    if lease is None or lease.worker_id != caller.party_id:
        return False
    # a refused result's replica may be another worker's by now
    if lease.state is ReplicaState.REJECTED:
        return True
    replica = tx.get(Replica, lease.shard_id, lease.replica)
    same = replica is not None and replica.epoch == lease.epoch and replica.output_root == root
    return same and replica is not None and replica.state in (ReplicaState.ACCEPTED, ReplicaState.SUBMITTED)


def _answer(tx: Transaction, lease_id: str) -> work_pb2.SubmitResultResponse:
    lease = found(tx.get(Lease, lease_id), "lease", lease_id)
    if lease.state is ReplicaState.ACCEPTED:
        return work_pb2.SubmitResultResponse(state="accepted", paid_msat=lease.paid_msat)
    if lease.state is ReplicaState.REJECTED:
        return work_pb2.SubmitResultResponse(
            state="rejected", why=wire.why_to_proto(Why.from_json(lease.why_json) if lease.why_json else REFUSED)
        )
    waiting = Why(
        code="result.waits_for_agreement",
        sentence="The result passed its checks and waits for a second worker to agree; then it is paid.",
    )
    return work_pb2.SubmitResultResponse(state="submitted", why=wire.why_to_proto(waiting))


class WorkServicer(work_pb2_grpc.WorkServiceServicer):
    def __init__(self, gate: Gate, desk: WorkDesk) -> None:
        self._gate, self._desk = gate, desk

    async def Attach(
        self, request_iterator: AsyncIterator[work_pb2.AttachRequest], context: Context
    ) -> AsyncGenerator[work_pb2.AttachResponse, None]:
        async with self._gate.admit(context, Role.WORKER) as caller:
            async for response in attach(request_iterator, caller, self._desk):
                yield response

    async def CommitResult(
        self, request: work_pb2.CommitResultRequest, context: Context
    ) -> work_pb2.CommitResultResponse:
        async with self._gate.admit(context, Role.WORKER) as caller:
            return await commit_result(request, caller, self._desk)

    async def SubmitResult(
        self, request: work_pb2.SubmitResultRequest, context: Context
    ) -> work_pb2.SubmitResultResponse:
        async with self._gate.admit(context, Role.WORKER) as caller:
            return await submit_result(request, caller, self._desk)

    async def ReleaseLease(
        self, request: work_pb2.ReleaseLeaseRequest, context: Context
    ) -> work_pb2.ReleaseLeaseResponse:
        async with self._gate.admit(context, Role.WORKER) as caller:
            return await release_lease(request, caller, self._desk)
