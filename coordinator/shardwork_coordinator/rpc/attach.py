"""The Attach stream of one worker: welcome, what it should hold, heartbeats, fresh tokens, and its breaking off.

Owns presence and the lives of leases; what was computed is `results`. Called by `work`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

from shardwork.errors import Conflict, InvalidInput, NotAllowed, ShardworkError, Unreachable
from shardwork.protocol import TOKEN_LIFETIME_S
from shardwork.v1 import work_pb2
from shardwork.why import Why

from ..artifacts import ArtifactStore
from ..engine import Engine, found, parse_lease, write_note
from ..events import Push
from ..links import Link, message, to_hello
from ..machine.attempts import lease_id, progressed
from ..machine.states import LIVE
from ..queueing import standing
from ..records import Attachment, Lease, Party, Replica, ReplicaState, Shard
from ..settings import Settings
from ..store.base import Transaction
from ..store.columns import INT_MAX
from ..telemetry.logs import Log
from .auth import Caller, Tokens, revoked
from .said import check_count, holdings, plain, shortened

#: a stream must begin with its Hello within this time, and goes on with heartbeats
HELLO_S = 10.0
#: a stream that is silent for so many times a lease's time to live is ended
SILENT_LEASES = 3
_log = Log("attach")
GONE = Why(code="lease.stale", sentence="This lease was given to another worker, or its job ended.")


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


async def attach(
    requests: AsyncIterator[work_pb2.AttachRequest], caller: Caller, desk: WorkDesk
) -> AsyncGenerator[work_pb2.AttachResponse, None]:
    """Serves one worker's stream: welcomes, re-sends what it should hold, then pushes until either side leaves."""
    try:
        async with asyncio.timeout(HELLO_S):
            first = await anext(aiter(requests), None)
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
    _log.info("worker.came", worker=caller.party_id)
    desk.engine.work_ready.set()
    desk.moved()
    listener = asyncio.create_task(_listen(requests, link, caller, desk))
    renewer = asyncio.create_task(_renew(link, caller, desk))
    try:
        while (pushed := await link.queue.get()) is not None:
            yield pushed
        if listener.done() and isinstance(refused := listener.exception(), ShardworkError):
            raise refused
        if link.is_banned:
            raise await _refused(caller, desk)
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
            _log.info("worker.went", worker=caller.party_id)
            # not awaited as part of a cancelled call, or the leases would keep their full time to live
            leaving = asyncio.get_running_loop().create_task(_left(link, desk))
            desk.leaving.add(leaving)
            leaving.add_done_callback(desk.leaving.discard)


async def _refused(caller: Caller, desk: WorkDesk) -> NotAllowed:
    party = await desk.engine.store.read(lambda tx: tx.get(Party, caller.party_id))
    return revoked(found(party, "party", caller.party_id))


async def _greet(hello: work_pb2.Hello, caller: Caller, desk: WorkDesk) -> Link:
    now_ms = desk.engine.clock.now_ms()
    check_count(hello.running)
    link = Link(
        worker_id=caller.party_id,
        name="",
        capability=shortened(hello.capability),
        minimum_msat=min(hello.minimum_msat, INT_MAX),
        minimum_msat_per_tera=hello.minimum_msat_per_tera_unit,
        donates=hello.donates,
        holds=holdings(hello.holdings),
        accepting=hello.accepting,
        reference=False,
        instance=plain(hello.instance, 40),
        since_ms=now_ms,
        last_seen_ms=now_ms,
    )

    def seen(tx: Transaction) -> Party | None:
        party = tx.get(Party, caller.party_id)
        if party is not None and party.revoked:
            # the gate remembers a party for a moment
            raise revoked(party)
        if party is not None:
            said = plain(hello.software_version, 64)
            party = replace(party, last_seen_ms=now_ms, software_version=said, listed=hello.listed)
            tx.put(party)
        _note_attached(tx, link, desk)
        return party

    party = await desk.engine.store.write(seen)
    if party is not None:
        link.name, link.reference, link.restriction = party.name, party.reference, standing.of(party)
    return link


def _note_attached(tx: Transaction, link: Link, desk: WorkDesk) -> None:
    """For the other coordinators, if there may be any, and for who asks what a worker was that has left."""
    tx.put(
        Attachment(
            worker_id=link.worker_id,
            coordinator=desk.engine.links.coordinator,
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
        while (request := await _next(incoming, silence_s)) is not None:
            if request.WhichOneof("message") == "heartbeat":
                await heartbeat(request.heartbeat, link, caller, desk)
    except TimeoutError:
        raise Unreachable("attach.silent", "The stream sent no heartbeat for too long.", waited_s=silence_s) from None
    finally:
        link.end()


async def _next(incoming: AsyncIterator[work_pb2.AttachRequest], silence_s: float) -> work_pb2.AttachRequest | None:
    """None at the end of the stream. Raises TimeoutError."""
    async with asyncio.timeout(silence_s):
        return await anext(incoming, None)


async def heartbeat(beat: work_pb2.Heartbeat, link: Link, caller: Caller, desk: WorkDesk) -> None:
    """Renews the leases it names. An idle worker's heartbeat touches memory only."""
    link.last_seen_ms = desk.engine.clock.now_ms()
    changed, link.accepting = link.accepting != beat.accepting, beat.accepting
    if changed:
        desk.engine.wake()
    if beat.HasField("holdings"):
        link.holds = holdings(beat.holdings)
    if not beat.running and not (changed and desk.engine.links.coordinator):
        return
    check_count(beat.running)
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
