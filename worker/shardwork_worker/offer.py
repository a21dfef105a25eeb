"""A signed lease offer: checked once when it arrives, and kept with the exact bytes that a commitment binds; and the
terms on which a worker takes one.

Called by the agent for every offer from the stream and for the one in the journal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from shardwork import work
from shardwork.errors import Corrupt, NotAllowed
from shardwork.money import sats, show
from shardwork.v1 import types_pb2, work_pb2
from shardwork.why import Why

from .settings import WorkerSettings

SEED_BYTES = 32
#: prices for work are quoted for so many work units
TERA = 10**12


@dataclass(frozen=True, slots=True)
class SignedOffer:
    #: serialised Envelope, for the journal
    envelope: bytes
    lease: work_pb2.LeaseOffer
    #: SHA-256 of the payload's exact bytes
    digest: bytes

    @property
    def lease_id(self) -> str:
        return self.lease.lease_id

    @property
    def inputs(self) -> Mapping[str, str]:
        """Input name -> artifact id."""
        return {given.name: given.artifact_id for given in self.lease.inputs}


def open_offer(envelope: types_pb2.Envelope, *, coordinator_key: bytes, worker_id: str) -> SignedOffer:
    """Checks signature, signer, addressee and form.

    Raises what `shardwork.work.open_offer` raises, NotAllowed "offer.not_for_us", Corrupt "offer.bad_form".
    """
    lease = work.open_offer(envelope, coordinator_key)
    if lease.worker_id != worker_id:
        sentence = "A lease offer for another worker was refused."
        raise NotAllowed("offer.not_for_us", sentence, lease=lease.lease_id, worker=lease.worker_id)
    _check_form(lease)
    return SignedOffer(envelope.SerializeToString(), lease, work.lease_sha256(envelope.payload))


def _check_form(lease: work_pb2.LeaseOffer) -> None:
    """What becomes a folder name or goes to the child must have its form, even from a coordinator we trust."""
    names = [given.name for given in lease.inputs]
    problems = {
        "an input's id is not 64 hex digits": any(not _is_artifact_id(given.artifact_id) for given in lease.inputs),
        "an input is named twice": len(set(names)) != len(names),
        "the seed has not 32 bytes": len(lease.seed) != SEED_BYTES,
        "the lease or its phase has no name": not lease.lease_id or not lease.phase,
        "the parameters are not JSON": not _is_json(lease.params_json),
    }
    for problem, is_there in problems.items():
        if is_there:
            raise Corrupt("offer.bad_form", "A lease offer is malformed.", lease=lease.lease_id, problem=problem)


def _is_artifact_id(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    #: at least this for a shard
    minimum_msat: int = 0
    #: and at least this for 10^12 work units
    minimum_msat_per_tera_unit: int = 0
    #: takes nothing
    donates: bool = False
    #: its owner wants its name on the coordinator's public page
    listed: bool = False

    def refusal(self, price_msat: int, work_units: int) -> Why | None:
        """Why this worker does not work at this price."""
        if self.donates:
            return None
        evidence = {"price_msat": str(price_msat), "work_units": str(work_units)}
        if price_msat < self.minimum_msat:
            return Why(
                code="worker.below_minimum",
                sentence=f"The price of {price_msat:,} msat is below this worker's {self.minimum_msat:,} msat a shard.",
                evidence=evidence | {"minimum_msat": str(self.minimum_msat)},
                next_step="Lower minimum_sats in worker.toml to take such shards.",
            )
        if price_msat * TERA < self.minimum_msat_per_tera_unit * work_units:
            return Why(
                code="worker.below_minimum_rate",
                sentence=f"The price is {price_msat * TERA // work_units:,} msat for 10^12 work units, and this worker "
                f"asks for {self.minimum_msat_per_tera_unit:,}.",
                evidence=evidence | {"minimum_msat_per_tera_unit": str(self.minimum_msat_per_tera_unit)},
                next_step="Lower minimum_msat_per_tera_unit in worker.toml to take such shards.",
            )
        return None

    def price(self, lease: work_pb2.LeaseOffer) -> str:
        """An offer's price in words."""
        if self.donates and not lease.price_msat:
            return "nothing: this worker gives its work"
        if not lease.work_units:
            return show(lease.price_msat)
        rate = lease.price_msat * TERA // lease.work_units
        return f"{show(lease.price_msat)} ({lease.work_units:,} work units, {rate:,} msat for 10^12)"


#: what a worker asks that was told nothing
FREE = Terms()


def terms_of(settings: WorkerSettings) -> Terms:
    return Terms(
        minimum_msat=0 if settings.donate else sats(settings.minimum_sats),
        minimum_msat_per_tera_unit=0 if settings.donate else settings.minimum_msat_per_tera_unit,
        donates=settings.donate,
        listed=settings.listed,
    )
