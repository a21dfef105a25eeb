"""The HTTP API without a socket: two requesters with keys and sats, a store in memory, and an offered model.

Nothing executes: a submitted job waits for its first phase for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from shardwork import api_key
from shardwork.clock import ManualClock
from shardwork.identity.role import Role
from shardwork.v1 import wallet_pb2
from shardwork_coordinator.api import router
from shardwork_coordinator.api.desk import ApiDesk
from shardwork_coordinator.api.keys import KeyGate
from shardwork_coordinator.api.lanes import Lane, Lanes
from shardwork_coordinator.api.measuring import Measurer
from shardwork_coordinator.artifacts import ArtifactStore
from shardwork_coordinator.artifacts.quota import ArtifactLimits
from shardwork_coordinator.engine import Engine
from shardwork_coordinator.hub import offered
from shardwork_coordinator.links import Links
from shardwork_coordinator.money.pricing import RateCard
from shardwork_coordinator.payments.simulated import SimulatedPayments
from shardwork_coordinator.records import ApiKey, Party
from shardwork_coordinator.rpc.artifacts import ArtifactDesk
from shardwork_coordinator.rpc.auth import Caller
from shardwork_coordinator.rpc.jobs import JobsDesk
from shardwork_coordinator.rpc.wallet import Wallet, create_deposit
from shardwork_coordinator.store import MemoryStore, Store
from shardwork_coordinator.web.server import Site, build

from ...client.tiny_model import write_model

ANNA, BERT = "anna000000000000", "bert000000000000"
SATS = 1_000


@dataclass(slots=True)
class Stand:
    desk: ApiDesk
    clock: ManualClock
    store: Store
    folder: Path
    secrets: dict[str, str] = field(default_factory=dict[str, str])
    clients: list[httpx.AsyncClient] = field(default_factory=list[httpx.AsyncClient])

    async def party(self, name: str, sats: int = SATS) -> httpx.AsyncClient:
        """A requester with a key, and the client that sends it."""
        secret = self.secrets[name] = api_key.draw()
        digest, now_ms = api_key.digest(secret), self.clock.now_ms()
        public = name.encode() * 2
        party = Party(id=name, public_key=public, roles="requester", name=name, created_ms=now_ms, last_seen_ms=now_ms)
        key = ApiKey(id=digest[:16], owner=name, name="", secret_sha256=digest, created_ms=now_ms)
        await self.store.write(lambda tx: (tx.insert(party), tx.insert(key)))
        if sats:
            request = wallet_pb2.CreateDepositRequest(msat=sats * 1000, idempotency_key=f"first-{name}")
            await create_deposit(request, Caller(name, public, Role.REQUESTER), self.desk.wallet)
        return self.client({"Authorization": f"Bearer {secret}"})

    def client(self, headers: dict[str, str] | None = None, host: str = "localhost") -> httpx.AsyncClient:
        app = build(self.desk.engine, Site(api=router(self.desk)))
        found = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, client=("127.0.0.1", 1)), base_url=f"http://{host}", headers=headers
        )
        self.clients.append(found)
        return found

    async def change_key(self, name: str, **changes: Any) -> None:
        digest = api_key.digest(self.secrets[name])

        def work(tx: Any) -> None:
            tx.put(replace(tx.find(ApiKey, secret_sha256=digest)[0], **changes))

        await self.store.write(work)

    async def offer(self, name: str = "tiny") -> None:
        stored = offered.store_model(write_model(self.folder / name), self.desk.artifacts.contents, self.folder / "s")
        await self.store.write(lambda tx: offered.offer(tx, name, stored, "mit", self.clock.now_ms()))


class Here(Lane):
    """A thread of this process, which saves a second of starting another."""

    async def ask(self, work: Callable[[Any], object], question: object, patience_s: float) -> object:
        return await asyncio.to_thread(work, question)


@contextlib.asynccontextmanager
async def standing(folder: Path, store: Store | None = None) -> AsyncGenerator[Stand, None]:
    clock, store = ManualClock(), store or MemoryStore()
    store.start()
    engine = Engine(store, Links(), clock)
    contents = ArtifactStore.open(folder / "artifacts")
    desk = ApiDesk(
        engine=engine,
        jobs=JobsDesk(engine=engine, rates=RateCard(msat_per_tera_unit=10, minimum_msat=1_000, fee_basis_points=200)),
        artifacts=ArtifactDesk(store, contents, clock, ArtifactLimits(reserve_bytes=0)),
        wallet=Wallet(store, SimulatedPayments(clock), clock),
        gate=KeyGate(store, clock),
        measurer=Measurer(str(folder / "artifacts"), folder / "scratch", lanes=Lanes(Here(), Here())),
        scratch=folder / "scratch",
    )
    stand = Stand(desk, clock, store, folder)
    try:
        yield stand
    finally:
        for client in stand.clients:
            await client.aclose()
        desk.close()
        store.close()


def rows(number: int = 40) -> bytes:
    """A chat file."""
    lines: list[str] = []
    for index in range(number):
        messages = [
            {"role": "user", "content": f"What is {index} and {index}?"},
            {"role": "assistant", "content": f"It is {2 * index}."},
        ]
        lines.append(json.dumps({"messages": messages}))
    return ("\n".join(lines) + "\n").encode()


async def send(client: httpx.AsyncClient, data: bytes = b"one two two\n", name: str = "text.txt") -> str:
    """The artifact id of a file that was uploaded."""
    answer = await client.post("/api/v1/artifacts", files={"file": (name, io.BytesIO(data))})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["artifact_id"])


def count_job(artifact_id: str, *, sats: int = 100, name: str = "words") -> dict[str, Any]:
    stage = {"name": "words", "recipe": "count", "data": ["text.txt"], "plan": {"shards_per_round": 1}}
    spec = {"name": name, "stages": [stage], "trust": {"class": "public"}, "budget": {"max_sats": sats}}
    facts = [{"stage": "words", "rows": 1, "input_bytes": 12}]
    return {"spec": spec, "facts": facts, "inputs": [{"name": "words.data", "artifact_id": artifact_id}]}


async def submit(client: httpx.AsyncClient, key: str = "", **more: Any) -> str:
    """The id of a job that counts words."""
    headers = {"Idempotency-Key": key} if key else {}
    body = count_job(await send(client), **more)
    answer = await client.post("/api/v1/jobs", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job_id"])
