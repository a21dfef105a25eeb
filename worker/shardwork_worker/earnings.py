"""What this worker earned: paid, pending and held, as the coordinator's ledger says, and which verdicts were told.

Owns the cached figures that `status` shows; asks the wallet only after a verdict, never on a timer. The agent calls it.
"""

from __future__ import annotations

from collections import deque

from shardwork.errors import ShardworkError
from shardwork.session import Session
from shardwork.v1 import wallet_pb2, work_pb2

from .status import Earned

ASK_TIMEOUT_S = 5.0


class Earnings:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._paid_msat = 0
        self._held_msat = 0
        #: each lease that is handed in and not judged: its price, and the request that handed it in
        self._pending: dict[str, tuple[int, work_pb2.SubmitResultRequest]] = {}
        #: a verdict comes in the answer to Submit, as a push, or both
        self._judged: deque[str] = deque(maxlen=256)
        self._asking = False
        self._ask_again = False

    def now(self) -> Earned:
        pending_msat = sum(price_msat for price_msat, _ in self._pending.values())
        return Earned(paid_msat=self._paid_msat, pending_msat=pending_msat, held_msat=self._held_msat)

    def hand_in(self, lease_id: str, price_msat: int, request: work_pb2.SubmitResultRequest) -> None:
        """Notes a lease that waits for its verdict."""
        if lease_id not in self._judged:
            self._pending[lease_id] = price_msat, request

    def waiting(self) -> dict[str, work_pb2.SubmitResultRequest]:
        """The requests whose verdicts are not known. A verdict that was pushed while the worker was away is lost, and
        the same request again is answered with it."""
        return {lease_id: request for lease_id, (_, request) in self._pending.items()}

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
