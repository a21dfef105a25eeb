"""Joining: a key becomes an annotator, says where it is paid, and takes out what it earned."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from shardwork.errors import InvalidInput, NotAllowed
from shardwork.identity.role import Role

from ..events import Push
from ..money import payouts
from ..money.withdrawals import ADDRESS
from ..queueing import standing
from ..records import Annotator, Answer, Party
from ..store.base import Transaction
from . import figures, places
from .desk import PeopleDesk
from .giving import arrive
from .signing import Call, annotator, too_often

MOST_NAME, MOST_INVITATION = 64, 64
MOST_MSAT = 2**53


async def join(call: Call, desk: PeopleDesk) -> dict[str, Any]:
    """Raises InvalidInput "people.bad_name", "people.bad_address" and "people.bad_invitation", NotAllowed
    "people.barred", LimitExceeded "people.too_often" and "enrolment.too_many_new"."""
    name, payout, invitation = _name(call.body), _address(call.body, "payout"), _invitation(call.body)
    known = await desk.engine.store.read(lambda tx: tx.get(Party, call.party))
    if known is None:
        if wait_s := desk.joins.take(call.address, desk.engine.clock.monotonic()):
            raise too_often(wait_s)
        desk.newcomers.admit(desk.engine.clock.monotonic())

    def work(tx: Transaction, pushes: list[Push]) -> dict[str, Any]:
        party = _enrolled(tx, call, desk.now_ms)
        party = replace(party, name=name or party.name, payout_address=payout or party.payout_address)
        tx.put(party)
        if invitation:
            _let_in(tx, party.id, invitation, desk)
        return {"annotator": party.id, "name": party.name, "payout": party.payout_address}

    return await desk.commit(work)


async def payout(call: Call, desk: PeopleDesk) -> dict[str, Any]:
    """Where this key is paid from now on; an empty address takes it away."""
    address = _address(call.body, "address")

    def work(tx: Transaction, pushes: list[Push]) -> dict[str, Any]:
        party = replace(annotator(tx, call), payout_address=address)
        tx.put(party)
        return {"annotator": party.id, "name": party.name, "payout": party.payout_address}

    return await desk.commit(work)


async def withdraw(call: Call, desk: PeopleDesk) -> dict[str, Any]:
    """A payout of so much, or of all; the same call again is the same payout.

    Raises InvalidInput "people.bad_amount" and what `payouts.request` raises.
    """
    msat = call.body.get("msat", 0)
    if type(msat) is not int or not 0 <= msat <= MOST_MSAT:
        raise InvalidInput(
            "people.bad_amount",
            "An amount is a whole number of msat; 0 or none means all.",
            next_step="Ask for another amount.",
        )

    def work(tx: Transaction, pushes: list[Push]) -> dict[str, Any]:
        annotator(tx, call)
        key, now_ms = f"people/withdraw/{call.id}", desk.now_ms
        known = tx.get(Answer, key)
        if known is None:
            row = payouts.request(tx, call.party, desk.asset, desk.payout_rules(), now_ms, msat=msat or None)
            known = Answer(id=key, request_sha256=call.id, response=row.id.encode(), created_ms=now_ms)
            tx.put(known)
        made = payouts.named(tx, known.response.decode())
        shown = {"id": made.id, "msat": made.msat, "state": str(made.state), "address": made.address}
        return {"payout": shown, "me": figures.of_person(tx, call.party)}

    return await desk.commit(work)


def _enrolled(tx: Transaction, call: Call, now_ms: int) -> Party:
    known = tx.get(Party, call.party)
    if known is None:
        return Party(
            id=call.party,
            public_key=call.public_key,
            roles=Role.ANNOTATOR,
            name="",
            created_ms=now_ms,
            last_seen_ms=now_ms,
        )
    if known.revoked or known.standing in standing.DISTRUSTED:
        raise NotAllowed("people.barred", "The operator has shut this key out.", next_step="Ask the operator.")
    roles = {name for name in known.roles.split(",") if name} | {str(Role.ANNOTATOR)}
    return replace(known, roles=",".join(sorted(roles)), last_seen_ms=now_ms)


def _let_in(tx: Transaction, party: str, invitation: str, desk: PeopleDesk) -> None:
    """Into every stage that is asked under this word."""
    for _, stage in places.running(tx):
        place = places.read(stage)
        if place is None or place.params.invitation != invitation:
            continue
        if tx.get(Annotator, place.job, place.stage, party) is None:
            arrive(tx, place.job, place.stage, party, desk.now_ms)


def _name(body: dict[str, Any]) -> str:
    name = body.get("name", "")
    if not isinstance(name, str) or len(name) > MOST_NAME or not name.isprintable():
        raise InvalidInput(
            "people.bad_name",
            f"A name has at most {MOST_NAME} printable letters.",
            next_step="Choose a shorter one, without line breaks.",
        )
    return " ".join(name.split())


def _address(body: dict[str, Any], field: str) -> str:
    address = body.get(field) or ""
    if not isinstance(address, str) or (address and not ADDRESS.fullmatch(address)):
        raise InvalidInput(
            "people.bad_address",
            "This is not a Lightning address.",
            next_step="It is written like name@example.org, in lower case; leave it out and say it later.",
            address=json.dumps(address)[:100],
        )
    return address


def _invitation(body: dict[str, Any]) -> str:
    invitation = body.get("invitation") or ""
    if not isinstance(invitation, str) or len(invitation) > MOST_INVITATION:
        raise InvalidInput(
            "people.bad_invitation", "This is not an invitation.", next_step="Open the link that you were sent."
        )
    return invitation
