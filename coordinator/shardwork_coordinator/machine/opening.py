"""A job begins: paid for, then running. Pure; called by `engine` inside the transaction that stores the job."""

from __future__ import annotations

from ..events import Change, Note
from ..money.movements import Move, escrow_account, user_account
from ..records import Job, JobState
from .moves import move


def open_job(draft: Job) -> Change:
    """Escrows the whole budget and starts the job. The ledger refuses when the requester can't cover it."""
    change = Change()
    if draft.budget_msat:
        change.movements.append(
            Move(
                id=f"escrow/{draft.id}",
                debit=user_account(draft.owner),
                credit=escrow_account(draft.id),
                msat=draft.budget_msat,
                reason="escrow",
                reference=draft.id,
            )
        )
    running = move(move(draft, JobState.FUNDED), JobState.RUNNING)
    change.rows += [running]
    change.notes.append(
        Note(
            kind="job.running",
            subject=draft.id,
            sentence=f"The job {draft.name!r} is funded and runs.",
            evidence={"escrow_msat": str(draft.budget_msat)},
        )
    )
    return change
