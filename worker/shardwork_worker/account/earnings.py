"""What this worker earned: paid, pending and held, as the coordinator's ledger says, and which verdicts were told.

Owns the cached figures that `status` shows, and what of each lease's end goes into the book; asks the wallet only after
a verdict, never on a timer. What waits for its verdict survives a restart in the book. The agent calls it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from shardwork.clock import Clock
from shardwork.errors import ShardworkError
from shardwork.session import Session
from shardwork.v1 import wallet_pb2, work_pb2
from shardwork.why import Why

from ..lease import Ended, Outcome
from ..limits.guard import CODES as LIMITED
from ..status import Earned
from .book import Book, Fate, Line
from .payee import Payee

ASK_TIMEOUT_S = 5.0
#: what the book says of each outcome
FATES = {
    Outcome.ACCEPTED: Fate.PAID,
    Outcome.REJECTED: Fate.REJECTED,
    Outcome.FAILED: Fate.FAILED,
    Outcome.LOST: Fate.LOST,
    Outcome.PENDING: Fate.PENDING,
}


class Earnings:
    def __init__(self, session: Session, book: Book, clock: Clock) -> None:
        self._session, self._clock = session, clock
        self.book = book
        self._paid_msat = 0
        self._held_msat = 0
        self.payee: Payee | None = None
        #: each lease that is handed in and not judged: its price
        self._pending = {line.lease_id: line.price_msat for line in book.pending(self._coordinator)}
        #: a verdict comes in the answer to Submit, as a push, or both
        self._judged: deque[str] = deque(maxlen=256)
        self._asking = False
        self._ask_again = False

    @property
    def _coordinator(self) -> str:
        return self._session.join.ca_sha256

    def now(self) -> Earned:
        return Earned(paid_msat=self._paid_msat, pending_msat=sum(self._pending.values()), held_msat=self._held_msat)

    def hand_in(self, lease: work_pb2.LeaseOffer, ended: Ended, *, took_ms: int) -> None:
        """Notes a lease that waits for its verdict, and what handed it in."""
        if lease.lease_id in self._judged:
            return
        self._pending[lease.lease_id] = lease.price_msat
        request = ended.request.SerializeToString() if ended.request is not None else b""
        self.book.note(self._line(lease, ended, took_ms=took_ms), request)

    def ended(self, lease: work_pb2.LeaseOffer, ended: Ended, *, took_ms: int = 0) -> None:
        """Notes in the book how a lease ended; one that the owner's limits did not allow was given back."""
        if ended.outcome is Outcome.FAILED and ended.why is not None and ended.why.code.startswith(LIMITED):
            self.returned(lease, ended.why)
            return
        self.book.note(self._line(lease, ended, took_ms=took_ms))

    def returned(self, lease: work_pb2.LeaseOffer, why: Why) -> None:
        """Notes one that was not taken, or was given back before its end."""
        self.book.note(replace(self._line(lease, Ended(outcome=Outcome.LOST, why=why)), state=Fate.GIVEN_BACK))

    def ended_later(self, lease_id: str, ended: Ended) -> None:
        """The end of a lease that is not in hand any more: it is in the book already."""
        known = self.book.find(lease_id)
        if known is not None and known.state is Fate.PENDING:
            why = ended.why
            self.book.note(
                replace(
                    known, state=FATES[ended.outcome], paid_msat=ended.paid_msat, why=why, at_ms=self._clock.now_ms()
                )
            )

    def waiting(self) -> dict[str, work_pb2.SubmitResultRequest]:
        """The requests whose verdicts are not known. A verdict that was pushed while the worker was away is lost, and
        the same request again is answered with it."""
        kept = {lease_id: self.book.request_of(lease_id) for lease_id in self._pending}
        return {lease_id: work_pb2.SubmitResultRequest.FromString(request) for lease_id, request in kept.items()}

    def judge(self, lease_id: str) -> bool:
        """Notes a verdict; False when it was known already."""
        self._pending.pop(lease_id, None)
        if lease_id in self._judged:
            return False
        self._judged.append(lease_id)
        return True

    async def refresh(self) -> None:
        """Asks the wallet. Calls that come while one is under way become one more; a failure keeps the old figures."""
        self._ask_again = True
        if self._asking:
            return
        self._asking = True
        try:
            while self._ask_again:
                self._ask_again = False
                await self._ask()
        finally:
            self._asking = False

    async def _ask(self) -> None:
        request = wallet_pb2.GetBalanceRequest()
        try:
            balance = await self._session.call(
                self._session.wallet.GetBalance, request, timeout_s=ASK_TIMEOUT_S, retries=0
            )
        except ShardworkError:
            return
        self._paid_msat, self._held_msat = balance.earned_msat, balance.held_msat
        self.payee = Payee(
            address=balance.payout_address,
            threshold_msat=balance.payout_threshold_msat,
            available_msat=balance.available_msat,
            asset=balance.asset,
        )

    def _line(self, lease: work_pb2.LeaseOffer, ended: Ended, *, took_ms: int = 0) -> Line:
        return Line(
            lease_id=lease.lease_id,
            coordinator=self._coordinator,
            recipe=lease.recipe,
            phase=lease.phase,
            price_msat=lease.price_msat,
            work_units=lease.work_units,
            at_ms=self._clock.now_ms(),
            state=FATES[ended.outcome],
            paid_msat=ended.paid_msat,
            took_ms=took_ms,
            why=ended.why,
        )
