"""The agent: what this worker is willing to do, and the one lease it has in hand.

Owns accepting and refusing offers, pause / finish / resume / stop, the circuit breaker and its status. The stream
brings it messages (it is the stream's desk), the control socket commands, the app starts and ends it. The steps of a
lease are `Lease`'s.
"""

from __future__ import annotations

import asyncio
import secrets
import traceback
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from shardwork.errors import NotFound, ShardworkError, StaleLease, Unreachable
from shardwork.money import show
from shardwork.protocol import software_version
from shardwork.v1 import types_pb2, work_pb2
from shardwork.why import Why
from shardwork.wire import why_from_proto, why_to_proto

from .account import reasons
from .account.book import Book
from .account.earnings import Earnings
from .account.reasons import About, Reason
from .control import Command
from .disclosure import disclosed
from .lease import Ended, Lease, Outcome, Step, Workplace, verdict
from .limits.guard import CODES as LIMITED
from .limits.guard import Guard
from .log import say
from .offer import FREE, SignedOffer, Terms, open_offer
from .refusals import (
    BUSY,
    DONATES,
    DRAINING,
    FINISHED,
    JOINING,
    OWNERS,
    PAUSED,
    REPLACED,
    STOPPED,
    UNEXPECTED,
    UNHEARD,
)
from .state_file import LeaseRecord, takes_files
from .status import State, Status
from .stream import Stream

#: shards that fail in a row before the worker rests; and how long it rests, twice as long each time it fails again.
#: It tries again by itself: one job that fails everywhere must not silence every worker until its owner comes
BREAKER_LIMIT = 3
BREAKER_REST_S, LONGEST_REST_S = 60.0, 3600.0
#: codes of failures that are this machine's, and how often it is looked whether they are over
DISK_TROUBLE = "worker.disk_"
DISK_CHECK_S = 30.0
#: how often the owner's limits are looked at
LIMITS_CHECK_S = 5.0
#: codes of failures that every worker would meet: of the job's model, rows or rate. They say nothing of this machine,
#: and other requesters' shards must not wait for somebody's mistake
JOB_TROUBLE = ("model.", "tokenizer.", "template.", "packing.", "continue.", "rows.", "trainer.diverged", LIMITED)
RELEASE_TIMEOUT_S = 5.0
#: artifacts of its cache that the coordinator is told of
MOST_HOLDINGS = 64
#: how long a pending verdict keeps `--until-idle` from ending
VERDICT_PATIENCE_S = 60.0

SETTLED = {"accepted": Outcome.ACCEPTED, "rejected": Outcome.REJECTED, "expired": Outcome.LOST}


class Agent:
    """One worker on one device. All methods run on the event loop that made it."""

    def __init__(
        self, place: Workplace, capability: work_pb2.Capability, terms: Terms = FREE, guard: Guard | None = None
    ) -> None:
        self._place = place
        self._guard = guard
        #: the owner's limit that keeps shards away now
        self._limit: Why | None = None
        self._capability = capability
        self._terms = terms
        #: what the coordinator was last told that the cache holds
        self._told_holdings: list[str] = []
        #: why the coordinator gives nothing, as it said last
        self._idle: Why | None = None
        self.stream = Stream(place.session, self)
        self._earnings = Earnings(place.session, Book(place.journal.folder), place.clock)
        self._welcomed = False
        #: why there is no connection; None while there is one or none was tried
        self._lost: Why | None = None
        #: why no offer is taken; None while offers are
        self._resting: Why | None = None
        self._lease: Lease | None = None
        self._holding: asyncio.Task[None] | None = None
        #: an offer that came while the lease before it was ending
        self._next: SignedOffer | None = None
        self._failures_in_row = 0
        #: how often the breaker rested the worker since a shard last succeeded
        self._trips = 0
        #: tells this process from another one with the same key
        self._instance = secrets.token_hex(8)
        self._shards_done = 0
        self._shards_failed = 0
        self._errands: set[asyncio.Task[None]] = set()
        #: while the disk is the reason for resting
        self._waking: asyncio.Task[None] | None = None
        self._active_at_s = place.clock.monotonic()

    @property
    def tripped(self) -> bool:
        """Whether the circuit breaker rests the worker."""
        return self._failures_in_row >= BREAKER_LIMIT

    @property
    def folder_in_hand(self) -> Path | None:
        """Where the lease in hand keeps its outputs; None without one."""
        return self._lease.folder if self._lease else None

    @property
    def inputs_in_hand(self) -> frozenset[str]:
        """Artifacts that the lease in hand reads."""
        return frozenset(self._lease.offer.inputs.values()) if self._lease else frozenset()

    def go_on_with(self, record: LeaseRecord) -> None:
        """Takes up the lease that an earlier process had in hand."""
        try:
            offer = self._opened(types_pb2.Envelope.FromString(record.offer))
        except (ShardworkError, ValueError) as error:
            say(f"forgot a lease of an earlier run: {error}")
            self._place.journal.forget()
            return
        say(f"going on with {offer.lease_id} from before the restart")
        self._take(offer, record)

    async def stop(self) -> None:
        """Releases the lease in hand and ends everything that the agent started."""
        self._resting = STOPPED
        await self._drop(STOPPED)
        if self._waking is not None:
            self._waking.cancel()
        if self._errands:
            await asyncio.wait(self._errands, timeout=RELEASE_TIMEOUT_S)
        for errand in self._errands:
            errand.cancel()

    async def keep_limits(self) -> None:
        """Looks at the owner's limits for as long as the worker lives. Ends by cancellation."""
        while True:
            await asyncio.sleep(LIMITS_CHECK_S)
            try:
                await self.look_at_limits()
            except Exception:
                # a folder that is gone for a moment must not end the looking: limits would never be held again
                traceback.print_exc()

    async def look_at_limits(self) -> None:
        """Takes shards or none, as the owner's limits say now; gives the one in hand back where they say so."""
        held = await self._guard.look() if self._guard is not None else None
        before, self._limit = self._limit, held.why if held else None
        if (before is None) != (held is None) or (before and held and before.code != held.why.code):
            say(held.why.render() if held else "no limit keeps shards away any more")
            self._active_at_s = self._place.clock.monotonic()
            self.stream.nudge()
        if held is not None and held.at_once:
            await self._drop(held.why)

    def idle_s(self) -> float | None:
        """Seconds since there was anything to do; None while there is, while paused by the owner, or disconnected."""
        if self._lease is not None or not self._welcomed or self._resting == PAUSED:
            return None
        idle_s = self._place.clock.monotonic() - self._active_at_s
        # a verdict that waits for a second key often brings more work, but it must not keep us for ever
        return None if self._earnings.now().pending_msat and idle_s < VERDICT_PATIENCE_S else idle_s

    async def obey(self, command: Command) -> dict[str, Any]:
        """Carries out a command of the owner and answers with the status after it."""
        match command:
            case Command.PAUSE:
                self._rest(PAUSED)
                await self._drop(PAUSED)
            case Command.FINISH:
                self._rest(FINISHED if self._lease is None else DRAINING)
            case Command.RESUME:
                self._failures_in_row = self._trips = 0
                self._rest(None)
            case Command.STOP:
                await self.stop()
            case Command.WHY:
                return self.why()
            case Command.STATUS:
                pass
        return self.status().to_json()

    def why(self) -> dict[str, Any]:
        """Every reason for what this worker does or does not do, and is or is not paid."""
        state, why = self._state()
        earnings = self._earnings
        told = [Reason(About.LIMIT if why.code.startswith(OWNERS) else About.WORK, why)] if why is not None else []
        if self._lease is not None:
            told.append(Reason(About.WORK, self._working(self._lease)))
        elif why is None:
            told.append(Reason(About.WORK, UNHEARD if self._welcomed else JOINING))
        if self._terms.donates:
            told.append(Reason(About.PAY, DONATES))
        told += reasons.from_book(earnings.book, self._place.clock.now_ms(), earnings.payee)
        return {"state": state.value, "reasons": [reason.to_json() for reason in told]}

    def _working(self, lease: Lease) -> Why:
        offer = lease.offer.lease
        return Why(
            code="worker.working",
            sentence=f"It works on {lease.offer.lease_id}: {lease.step.value}, {lease.progress:.0%}.",
            evidence={"recipe": offer.recipe, "phase": offer.phase, "price": self._terms.price(offer)},
            next_step=reasons.NOTHING_TO_DO,
        )

    def status(self) -> Status:
        lease, place = self._lease, self._place
        state, why = self._state()
        return Status(
            state=state,
            why=why,
            shard=lease.offer.lease_id if lease else None,
            recipe=lease.offer.lease.recipe if lease else "",
            phase=lease.offer.lease.phase if lease else "",
            price_msat=lease.offer.lease.price_msat if lease else 0,
            progress=round(lease.progress, 4) if lease else None,
            step=lease.step.value if lease else None,
            loss=lease.loss if lease else None,
            earned=self._earnings.now(),
            worker_id=place.session.party_id,
            device=place.device,
            coordinator=place.session.join.address,
            shards_done=self._shards_done,
            shards_failed=self._shards_failed,
            sandbox=place.sandbox.word,
            sandbox_lacks=tuple(place.sandbox.open_areas),
        )

    # What the stream's desk is asked and told.

    @property
    def accepting(self) -> bool:
        return self._kept_away is None

    @property
    def _kept_away(self) -> Why | None:
        """Why no offer is taken; None while offers are."""
        return self._resting or self._limit

    def running(self) -> Sequence[work_pb2.LeaseStatus]:
        """The lease in hand, and the offer that waits for its end: unsaid, it would be taken back as silent."""
        in_hand = [self._lease.status()] if self._lease else []
        waiting = [work_pb2.LeaseStatus(lease_id=self._next.lease_id, step="waiting")] if self._next else []
        return [*in_hand, *waiting]

    def hello(self) -> work_pb2.Hello:
        return work_pb2.Hello(
            capability=self._capability,
            minimum_msat=self._terms.minimum_msat,
            minimum_msat_per_tera_unit=self._terms.minimum_msat_per_tera_unit,
            donates=self._terms.donates,
            listed=self._terms.listed,
            holdings=self._holdings(),
            running=self.running(),
            software_version=software_version(),
            accepting=self.accepting,
            instance=self._instance,
        )

    @property
    def is_away(self) -> bool:
        """Whether this worker stays away until its owner says `resume`."""
        return self._resting is REPLACED

    def holdings(self) -> work_pb2.Holdings | None:
        """What the cache holds, when that changed since it was told."""
        before = self._told_holdings
        found = self._holdings()
        return found if self._told_holdings != before else None

    def _holdings(self) -> work_pb2.Holdings:
        self._told_holdings = self._place.cache.newest(MOST_HOLDINGS)
        return work_pb2.Holdings(artifact_ids=self._told_holdings)

    def on_idle(self, why: Why) -> None:
        self._idle = why

    def on_peers(self) -> None:
        self._place.on_peers()

    def on_welcome(self, worker_id: str) -> None:
        word = "joined" if self._lost is None else "joined again:"
        self._welcomed, self._lost, self._idle = True, None, None
        self._active_at_s = self._place.clock.monotonic()
        say(f"{word} {self._place.session.join.address} as worker {worker_id} with {self._place.device}")
        self._send_off(self._catch_up())

    def on_disconnect(self, why: Why) -> None:
        self._welcomed = False
        if why.code == "attach.replaced":
            say(REPLACED.render())
            self._rest(REPLACED)
            # not given back: it is the other one's now
            self._send_off(self._drop(REPLACED, tell=False))
        if self._lost is None or self._lost.code != why.code:
            say(f"no connection, trying again until there is one: {why.render()}")
        self._lost = why

    def on_offer(self, envelope: types_pb2.Envelope) -> None:
        self._active_at_s = self._place.clock.monotonic()
        try:
            offer = self._opened(envelope)
        except ShardworkError as error:
            # nothing in it can be trusted, so there is nothing to give back either
            say(f"refused an offer: {error}")
            return
        if offer.lease_id in self._known_leases():
            # told again after a reconnect
            return
        refusal = self._refusal(offer)
        if refusal is not None:
            say(f"gave back {offer.lease_id}: {refusal.render()}")
            self._earnings.returned(offer.lease, refusal)
            self._send_off(self._release(offer.lease_id, refusal))
        elif self._lease is None:
            self._take(offer)
        else:
            self._next = offer

    def on_revoke(self, lease_id: str, why: Why) -> None:
        if self._next is not None and self._next.lease_id == lease_id:
            self._next = None
        if self._lease is not None and self._lease.offer.lease_id == lease_id:
            if self._holding is not None and self._holding.cancelling():
                # told again with each heartbeat until the child has obeyed
                return
            say(f"{lease_id} was revoked: {why.render()}")
            self._send_off(self._drop(why, tell=False))
        else:
            # handed in and waiting for its verdict: there will be none
            self._earnings.judge(lease_id)
            self._earnings.ended_later(lease_id, Ended(outcome=Outcome.LOST, why=why))

    def on_settlement(self, settlement: work_pb2.Settlement) -> None:
        self._send_off(self._earnings.refresh())
        outcome = SETTLED.get(settlement.state)
        in_hand = self._lease is not None and self._lease.offer.lease_id == settlement.lease_id
        # the answer to Submit, which is on its way, says the same and ends the lease
        if outcome is None or in_hand:
            return
        why = why_from_proto(settlement.why) if settlement.HasField("why") else None
        self._later(settlement.lease_id, Ended(outcome=outcome, why=why, paid_msat=settlement.paid_msat))

    def _later(self, lease_id: str, ended: Ended) -> None:
        """A verdict on a lease that is not in hand any more."""
        self._earnings.ended_later(lease_id, ended)
        self._judge(lease_id, ended)

    async def _catch_up(self) -> None:
        """Hears the verdicts that came while this worker was away: they were pushed once, to nobody."""
        session = self._place.session
        for lease_id, request in self._earnings.waiting().items():
            try:
                ended = verdict(request, await session.call(session.work.SubmitResult, request))
            except (StaleLease, NotFound) as error:
                ended = Ended(outcome=Outcome.LOST, why=error.why)
            except Unreachable:
                # asked again after the next welcome
                break
            except ShardworkError as error:
                # one that can't be answered must not keep the others from being asked about
                say(f"no verdict on {lease_id} yet: {error}")
                continue
            if ended.outcome is not Outcome.PENDING:
                self._later(lease_id, ended)
        await self._earnings.refresh()

    # The lease in hand.

    def _known_leases(self) -> set[str]:
        offers = [self._lease.offer if self._lease else None, self._next]
        return {offer.lease_id for offer in offers if offer is not None}

    def _opened(self, envelope: types_pb2.Envelope) -> SignedOffer:
        session = self._place.session
        return open_offer(envelope, coordinator_key=session.coordinator_public_key, worker_id=session.party_id)

    def _refusal(self, offer: SignedOffer) -> Why | None:
        lease, ours = offer.lease, self._capability.execution_class
        if (away := self._kept_away) is not None:
            return away
        if self._next is not None or (self._lease is not None and not self._is_ending):
            return BUSY
        if lease.execution_class not in ("", ours):
            sentence = "The shard needs another execution class."
            evidence = {"wanted": lease.execution_class, "ours": ours}
            return Why(code="worker.other_class", sentence=sentence, evidence=evidence)
        return self._terms.refusal(lease.price_msat, lease.work_units)

    @property
    def _is_ending(self) -> bool:
        """Whether the coordinator may already count the lease in hand as over: handed in, refused or revoked."""
        handing_in = self._lease is not None and self._lease.step in (Step.COMMITTING, Step.UPLOADING)
        return handing_in or (self._holding is not None and self._holding.cancelling() > 0)

    def _take(self, offer: SignedOffer, record: LeaseRecord | None = None) -> None:
        lease = offer.lease
        if record is None:
            say(f"took {offer.lease_id} ({lease.recipe} {lease.phase}) for {self._terms.price(lease)}")
        self._idle = None
        self._lease = Lease(self._place, offer, record)
        self._holding = asyncio.create_task(self._hold(self._lease))

    async def _hold(self, lease: Lease) -> None:
        started_s = self._place.clock.monotonic()
        try:
            ended = await lease.run()
        except Exception:
            # a bug must not leave the worker holding a lease for ever
            traceback.print_exc()
            ended = Ended(outcome=Outcome.FAILED, why=UNEXPECTED)
        self._end(lease, ended, seconds=self._place.clock.monotonic() - started_s)

    def _end(self, lease: Lease, ended: Ended | None, *, seconds: float = 0.0) -> None:
        """Draws the consequences; `ended` is None for a dropped lease. No await: nothing sees a half-ended lease."""
        lease.clear()
        self._lease, self._holding = None, None
        self._active_at_s = self._place.clock.monotonic()
        lease_id = lease.offer.lease_id
        if ended is not None and ended.outcome is Outcome.PENDING:
            say(f"{lease_id} handed in after {seconds:.1f} s, its verdict is pending")
            self._earnings.hand_in(lease.offer.lease, ended, took_ms=round(seconds * 1000))
        elif ended is not None:
            self._earnings.ended(lease.offer.lease, ended, took_ms=round(seconds * 1000))
            self._judge(lease_id, ended, seconds=seconds)
            self._send_off(self._earnings.refresh())
        if ended is not None and ended.outcome is Outcome.FAILED:
            self._send_off(self._release(lease_id, ended.why or UNEXPECTED))
        if self._resting == DRAINING:
            self._rest(FINISHED)
        following, self._next = self._next, None
        if following is not None and self.accepting:
            self._take(following)
        elif following is not None:
            self._send_off(self._release(following.lease_id, self._kept_away or BUSY))

    def _judge(self, lease_id: str, ended: Ended, *, seconds: float = 0.0) -> None:
        """Tells a verdict once and counts it for the breaker."""
        if not self._earnings.judge(lease_id):
            return
        duration = f" in {seconds:.1f} s" if seconds else ""
        reason = ended.why.render() if ended.why else ""
        match ended.outcome:
            case Outcome.ACCEPTED:
                say(f"{lease_id} done{duration}, paid {show(ended.paid_msat)}")
                self._shards_done += 1
                self._failures_in_row = self._trips = 0
            case Outcome.REJECTED:
                say(f"{lease_id} was rejected: {reason}")
                self._count_failure(ended.why)
            case Outcome.FAILED:
                say(f"{lease_id} failed: {reason}")
                self._count_failure(ended.why)
            case Outcome.LOST | Outcome.PENDING:
                say(f"{lease_id} is no longer ours: {reason}")

    def _count_failure(self, last: Why | None) -> None:
        self._shards_failed += 1
        if last is not None and last.code.startswith(JOB_TROUBLE):
            return
        self._failures_in_row += 1
        # an owner's pause or finish keeps its own reason
        if self.tripped and self._resting is None:
            rest_s = min(BREAKER_REST_S * 2**self._trips, LONGEST_REST_S)
            self._trips += 1
            why = Why(
                code="worker.breaker",
                sentence=f"{self._failures_in_row} shards in a row failed, so the worker rests {rest_s / 60:.0f} min.",
                evidence={"last": last.render() if last else ""},
                next_step="If it is this machine's fault, mend it. It tries again by itself, or at once: "
                "shardwork-worker resume",
            )
            say(why.render())
            self._rest(why)
            self._waking = asyncio.create_task(self._wait_and_try(why, rest_s))
        elif last is not None and last.code.startswith(DISK_TROUBLE) and self._resting is None:
            # the next shard would meet the same disk, and each one that fails counts against its job
            next_step = "Look for free space and permissions; it goes on by itself. Or at once: shardwork-worker resume"
            why = Why(code=last.code, sentence=f"{last.sentence} It takes no work.", next_step=next_step)
            say(why.render())
            self._rest(why)
            self._waking = asyncio.create_task(self._wait_for_disk(why))

    async def _wait_and_try(self, resting: Why, rest_s: float) -> None:
        """Takes a shard after the rest; if that fails too, the worker rests again. The owner comes first."""
        await asyncio.sleep(rest_s)
        if self._resting is resting:
            say("this worker tries a shard again")
            self._failures_in_row = BREAKER_LIMIT - 1
            self._rest(None)

    async def _wait_for_disk(self, resting: Why) -> None:
        """Takes work again once the disk does; the owner's own commands come first."""
        folders = (self._place.work_folder, self._place.journal.folder)
        while self._resting is resting:
            await asyncio.sleep(DISK_CHECK_S)
            if await asyncio.to_thread(takes_files, folders) and self._resting is resting:
                say("the disk takes files again, and this worker takes shards")
                self._rest(None)

    async def _drop(self, why: Why, *, tell: bool = True) -> None:
        """Ends the lease in hand, if there is one, without finishing it."""
        lease, holding = self._lease, self._holding
        if lease is None or holding is None:
            return
        # cancelling twice would cut short the child's time to obey
        if not holding.cancelling():
            holding.cancel()
        await asyncio.wait({holding})
        if self._lease is lease:
            self._end(lease, None)
            if tell:
                self._earnings.returned(lease.offer.lease, why)
                await self._release(lease.offer.lease_id, why)
            else:
                self._earnings.ended(lease.offer.lease, Ended(outcome=Outcome.LOST, why=why))

    async def _release(self, lease_id: str, why: Why) -> None:
        """Gives a lease back with its reason; if that fails, heartbeats show that it is not held any more."""
        session = self._place.session
        request = work_pb2.ReleaseLeaseRequest(lease_id=lease_id, why=why_to_proto(disclosed(why)))
        try:
            await session.call(session.work.ReleaseLease, request, timeout_s=RELEASE_TIMEOUT_S, retries=1)
        except ShardworkError as error:
            say(f"could not give back {lease_id}: {error}")

    def _rest(self, why: Why | None) -> None:
        self._resting = why
        self._active_at_s = self._place.clock.monotonic()
        self.stream.nudge()

    def _state(self) -> tuple[State, Why | None]:
        if self._resting == DRAINING:
            return State.DRAINING, DRAINING
        if self._resting is not None:
            return State.PAUSED, self._resting
        if self._limit is not None:
            return State.PAUSED if self._lease is None else State.DRAINING, self._limit
        if self._lease is not None:
            return State.BUSY, self._lost
        if self._lost is not None:
            return State.OFFLINE, self._lost
        return (State.READY, self._idle) if self._welcomed else (State.JOINING, None)

    def _send_off(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs it beside everything else; kept, because the loop alone would let it be collected."""
        errand = asyncio.create_task(work)
        self._errands.add(errand)
        errand.add_done_callback(self._errands.discard)
