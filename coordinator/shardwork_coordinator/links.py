"""Links: the workers that are attached to this coordinator right now, and the way to push to them.

In memory only: everything that must survive is in the store, and a worker that comes back is told again. Where several
coordinators share a database, also what the store says of those attached to the others, a second old at most. Written
by `rpc.work` and `cluster`, read by `granting`, the sweeper, views and metrics.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shardwork import wire
from shardwork.recipes.abilities import known
from shardwork.v1 import types_pb2, work_pb2
from shardwork.why import Why

from .events import Push, World
from .queueing import standing
from .queueing.standing import Restriction
from .records import Attachment, Party, Standing
from .scheduler import Worker

#: offers, revocations and settlements a worker may lag behind before its stream is dropped
QUEUE_LIMIT = 1_000
#: workers whose memory proved too small
MOST_REMEMBERED = 10_000


@dataclass(slots=True, kw_only=True)
class Presence:
    """One attached worker, here or at another coordinator."""

    worker_id: str
    name: str
    capability: work_pb2.Capability
    minimum_msat: int
    accepting: bool
    reference: bool
    since_ms: int
    last_seen_ms: int
    minimum_msat_per_tera: int = 0
    donates: bool = False
    #: artifacts in its cache, as it says
    holds: frozenset[str] = frozenset()
    #: when it was last given something, or came
    idle_since_ms: int = 0
    #: the worker's process
    instance: str = ""
    #: estimated bytes of the smallest shard that its memory did not hold; 0: none yet
    too_large_bytes: int = 0
    #: what the operator decided of it, at most about a second ago; None: it may do everything
    restriction: Restriction | None = None

    @property
    def takes_work(self) -> bool:
        """It says so, and the operator lets it."""
        return self.accepting and self.restriction is None

    @property
    def is_banned(self) -> bool:
        return self.restriction is not None and self.restriction.standing is Standing.BANNED

    def as_worker(self) -> Worker:
        return Worker(
            id=self.worker_id,
            memory_bytes=self._memory_bytes(),
            minimum_msat=self.minimum_msat,
            reference=self.reference,
            can_train=self.capability.can_train,
            recipes=frozenset(self.capability.recipes),
            paused=not self.accepting,
            minimum_msat_per_tera=self.minimum_msat_per_tera,
            donates=self.donates,
            device=self.capability.device,
            abilities=known(self.capability.abilities),
            holds=self.holds,
            idle_since_ms=self.idle_since_ms or self.since_ms,
            restricted=self.restriction.why if self.restriction else None,
        )

    def _memory_bytes(self) -> int:
        """What it says, or less where a shard proved that wrong."""
        said = self.capability.memory_bytes
        return min(said or self.too_large_bytes, self.too_large_bytes - 1) if self.too_large_bytes > 1 else said


@dataclass(slots=True, kw_only=True)
class Link(Presence):
    """One worker that is attached here."""

    #: another process with its key took over
    replaced: bool = False
    #: why it is idle, as it was told last
    told: str = ""
    queue: asyncio.Queue[work_pb2.AttachResponse | None] = field(
        default_factory=lambda: asyncio.Queue[work_pb2.AttachResponse | None](QUEUE_LIMIT)
    )

    def end(self) -> None:
        """Ends the stream; what a worker that stopped reading has not taken is dropped, it learns it again."""
        while self.queue.full():
            self.queue.get_nowait()
        self.queue.put_nowait(None)

    def tell(self, why: Why) -> None:
        """Says why it is given nothing, once; a reason is no reason to drop a slow stream."""
        if self.told != why.code and not self.queue.full():
            self.told = why.code
            idle = work_pb2.Idle(why=wire.why_to_proto(why))
            self.queue.put_nowait(work_pb2.AttachResponse(idle=idle))


class Links:
    """All links of this process, one per worker: a second stream of the same key replaces the first."""

    def __init__(self, coordinator: str = "") -> None:
        """`coordinator`: this one's id among those on its database; empty when it is alone."""
        self.coordinator = coordinator
        self._links: dict[str, Link] = {}
        #: worker and process -> what its memory did not hold, oldest forgotten first
        self._too_large: dict[tuple[str, str], int] = {}
        self._elsewhere: dict[str, Presence] = {}
        #: called after a worker came, left or changed what it accepts
        self.changed: Callable[[], None] = lambda: None
        self.are_closed = False

    def attach(self, link: Link) -> None:
        previous = self._links.get(link.worker_id)
        if previous is not None:
            # the newest wins: its owner started it last, and an older one that hangs could never be got rid of
            previous.replaced = is_another(link, previous)
            previous.end()
        # of this process only: its owner may have started it again with more memory to use
        link.too_large_bytes = self._too_large.get((link.worker_id, link.instance), 0)
        self._links[link.worker_id] = link
        self.changed()

    def detach(self, link: Link) -> bool:
        """True when it was the worker's current link."""
        if self._links.get(link.worker_id) is not link:
            return False
        del self._links[link.worker_id]
        self.changed()
        return True

    def note_out_of_memory(self, worker_id: str, shard_bytes: int) -> None:
        """Shards estimated at so much or more go to others from now on; a restart of either side forgets it."""
        link = self._links.get(worker_id)
        if link is None or shard_bytes <= 1:
            return
        known = link.too_large_bytes
        link.too_large_bytes = min(known, shard_bytes) if known else shard_bytes
        self._too_large.pop((worker_id, link.instance), None)
        self._too_large[worker_id, link.instance] = link.too_large_bytes
        if len(self._too_large) > MOST_REMEMBERED:
            del self._too_large[next(iter(self._too_large))]

    def close(self) -> None:
        """Ends every stream, so that a stopping server waits for none."""
        self.are_closed = True
        for link in self.all():
            link.end()

    def get(self, worker_id: str) -> Link | None:
        return self._links.get(worker_id)

    def all(self) -> list[Link]:
        return list(self._links.values())

    def know_elsewhere(self, presences: Iterable[Presence]) -> None:
        """Who is attached to the other coordinators now."""
        self._elsewhere = {one.worker_id: one for one in presences}

    def find(self, worker_id: str) -> Presence | None:
        """The worker, wherever it is attached."""
        return self._links.get(worker_id) or self._elsewhere.get(worker_id)

    def everywhere(self) -> list[Presence]:
        """Workers attached here and to the other coordinators, each once."""
        return list({**self._elsewhere, **self._links}.values())

    def accepting_here(self) -> list[Worker]:
        """Those that this coordinator may lease to."""
        return [link.as_worker() for link in self._links.values() if link.takes_work]

    def accepting(self) -> list[Worker]:
        """Those that would take work and may, wherever they are attached."""
        return [one.as_worker() for one in self.everywhere() if one.takes_work]

    def know_restrictions(self, restrictions: Mapping[str, Restriction]) -> None:
        """What the operator decided, as the store has it now."""
        changed = False
        for one in self.everywhere():
            before, one.restriction = one.restriction, restrictions.get(one.worker_id)
            changed |= before != one.restriction
        if changed:
            self.changed()

    def know_references(self, references: Collection[str]) -> None:
        """Whom the operator vouches for, as the store has it now."""
        changed = False
        for one in self.everywhere():
            before, one.reference = one.reference, one.worker_id in references
            changed |= before != one.reference
        if changed:
            self.changed()

    def attached(self) -> list[Worker]:
        """Those that take nothing for now as well."""
        return [one.as_worker() for one in self.everywhere()]

    def world(self, now_ms: int) -> World:
        able = [worker for worker in self.accepting() if worker.can_train]
        return World(
            now_ms=now_ms,
            workers=len(able),
            references=sum(1 for worker in able if worker.reference),
            draw=secrets.token_bytes(16),
        )

    def push(self, pushes: Iterable[Push]) -> list[Push]:
        """Hands each push to its worker's stream; those whose worker is not attached here come back."""
        others: list[Push] = []
        for push in pushes:
            link = self._links.get(push.worker_id)
            if link is None:
                others.append(push)
            else:
                link.told = ""
                self._put(link, message(push))
        return others

    def tell_peers(self, addresses: Sequence[str]) -> None:
        """Where the workers may go on when this coordinator ends."""
        for link in self.all():
            self._put(link, work_pb2.AttachResponse(peers=work_pb2.Peers(addresses=addresses)))

    def _put(self, link: Link, response: work_pb2.AttachResponse) -> None:
        try:
            link.queue.put_nowait(response)
        except asyncio.QueueFull:
            # a worker that stopped reading is let go; it learns everything again when it comes back
            del self._links[link.worker_id]
            link.end()


def is_another(one: Presence, other: Presence) -> bool:
    """Whether these are two processes with one key, and not one that came again."""
    return bool(one.instance and other.instance) and one.instance != other.instance


def to_hello(one: Presence) -> bytes:
    """What the store keeps of a worker for other coordinators."""
    hello = work_pb2.Hello(
        capability=one.capability,
        minimum_msat=one.minimum_msat,
        minimum_msat_per_tera_unit=one.minimum_msat_per_tera,
        donates=one.donates,
        holdings=work_pb2.Holdings(artifact_ids=sorted(one.holds)),
        instance=one.instance,
    )
    return hello.SerializeToString(deterministic=True)


def from_hello(row: Attachment, party: Party, last_seen_ms: int) -> Presence:
    """A worker that another coordinator wrote down."""
    hello = work_pb2.Hello.FromString(row.hello)
    return Presence(
        worker_id=row.worker_id,
        name=party.name,
        capability=hello.capability,
        minimum_msat=row.minimum_msat,
        minimum_msat_per_tera=hello.minimum_msat_per_tera_unit,
        donates=hello.donates,
        holds=frozenset(hello.holdings.artifact_ids),
        instance=hello.instance,
        accepting=row.accepting,
        reference=party.reference,
        since_ms=row.since_ms,
        last_seen_ms=last_seen_ms,
        restriction=standing.of(party),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A worker's machine in its own words, which nobody has checked but by its results."""

    device: str = ""
    device_name: str = ""
    memory_bytes: int = 0
    execution_class: str = ""
    threads: int = 0
    recipes: tuple[str, ...] = ()
    can_train: bool = False
    torch_version: str = ""
    disk_free_bytes: int = 0
    sandbox: str = ""
    abilities: tuple[str, ...] = ()
    #: (what was trained, tokens a second) of its own benchmark
    speeds: tuple[tuple[str, float], ...] = ()


def machine_of(presence: Presence | None, row: Attachment | None) -> Machine:
    """What it says now, or said when it came last; nothing of one that never came."""
    if presence is None and row is None:
        return Machine()
    said = presence.capability if presence else work_pb2.Hello.FromString(row.hello if row else b"").capability
    return Machine(
        device=said.device,
        device_name=said.device_name,
        memory_bytes=said.memory_bytes,
        execution_class=said.execution_class,
        threads=said.threads,
        recipes=tuple(sorted(said.recipes)),
        can_train=said.can_train,
        torch_version=said.torch_version,
        disk_free_bytes=said.disk_free_bytes,
        sandbox=said.sandbox,
        abilities=tuple(sorted(said.abilities)),
        speeds=tuple((f"{one.kind} {one.preset}", one.tokens_per_s) for one in said.speeds),
    )


def message(push: Push) -> work_pb2.AttachResponse:
    """The wire form of a push."""
    why = wire.why_to_proto(push.why) if push.why else None
    if push.kind == "offer":
        return work_pb2.AttachResponse(offer=types_pb2.Envelope.FromString(push.offer))
    if push.kind == "revoke":
        return work_pb2.AttachResponse(revoke=work_pb2.Revoke(lease_id=push.lease_id, why=why))
    return work_pb2.AttachResponse(
        settlement=work_pb2.Settlement(lease_id=push.lease_id, state=push.kind, paid_msat=push.paid_msat, why=why)
    )
