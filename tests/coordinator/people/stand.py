"""A coordinator whose people answer over its real HTTP routes, without a socket: real signatures, machine, ledger and
executor phases (in this process), a manual clock.

Somebody is a key with a way of answering. Nothing sleeps.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx

from shardwork.clock import ManualClock
from shardwork.identity.keys import SigningKey
from shardwork.ids import party_id
from shardwork.jobs.spec import BudgetSection, JobSpec, StageSpec, TrustSection
from shardwork.recipes.base import StageFacts
from shardwork_coordinator.api.limits import Buckets
from shardwork_coordinator.artifacts import ArtifactStore
from shardwork_coordinator.engine import Engine, advance, slice_of_job, start_next_stage, write_change
from shardwork_coordinator.events import MachineEvent, Push
from shardwork_coordinator.executor import Executor, ExecutorResult, ExecutorTask, Failed, Work, run_task
from shardwork_coordinator.links import Links
from shardwork_coordinator.machine.opening import open_job
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import Move, external_account, user_account
from shardwork_coordinator.money.pricing import RateCard, quote
from shardwork_coordinator.outbox import OutboxRunner
from shardwork_coordinator.people.desk import PeopleDesk
from shardwork_coordinator.people.items import Items
from shardwork_coordinator.people.routes import router
from shardwork_coordinator.people.signing import message
from shardwork_coordinator.people.sweeping import sweep
from shardwork_coordinator.records import (
    Annotator,
    Job,
    JobState,
    Outbox,
    OutboxState,
    Record,
    Transfer,
    TransferKind,
    Vote,
    VoteState,
)
from shardwork_coordinator.rpc.jobs import _stages  # pyright: ignore[reportPrivateUsage]
from shardwork_coordinator.store import MemoryStore, Store
from shardwork_coordinator.store.base import R, Transaction
from shardwork_coordinator.web.server import Site, build

OWNER, JOB, STAGE = "requester0000000", "job000000001", "ask"
#: of a row: which of its answers is better
BETTER = "a long and helpful answer"


def rows(count: int, golds: int = 0) -> str:
    """Prompts with two answers; the better one is at either place. The last ones say so."""
    chosen, lines = random.Random(0), list[str]()
    for number in range(count + golds):
        place = chosen.randrange(2)
        texts = [f"no {number}", f"{BETTER} {number}"]
        answers = [{"model": f"m{one}", "text": texts[one]} for one in ((1, 0) if place == 0 else (0, 1))]
        row: dict[str, Any] = {
            "prompt_id": f"p{number}",
            "prompt": f"Say something about {number}.",
            "answers": answers,
        }
        if number >= count:
            row["gold"] = {"winner": "ab"[place]}
        lines.append(json.dumps(row))
    return "\n".join(lines) + "\n"


class Here(Executor):
    """The executor's work in this process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder / "artifacts"), folder / "scratch", reserve_bytes=0)
        self._folder, self._runs = folder, 0

    async def run(self, task: ExecutorTask) -> ExecutorResult:
        self._runs += 1
        folder, cache = self._folder / "scratch" / str(self._runs), self._folder / "scratch" / "cache"
        work = Work(task, str(self._folder / "artifacts"), folder, cache, 1 << 30, 0)
        outcome = await asyncio.to_thread(run_task, work)
        if isinstance(outcome, Failed):
            raise outcome.to_error()
        return outcome


@dataclass(slots=True)
class Stand:
    engine: Engine
    clock: ManualClock
    store: Store
    desk: PeopleDesk
    folder: Path
    client: httpx.AsyncClient
    outbox: OutboxRunner
    rates: RateCard = field(default_factory=RateCard)
    #: stages of a job after the one that asks people
    then: tuple[StageSpec, ...] = ()

    # ---- the requester ------------------------------------------------------------------------------------------

    async def submit(self, data: str | None = None, *, job: str = JOB, budget_msat: int = 0, **params: Any) -> None:
        """A job that asks people, up to the moment when they may answer. `budget_msat` 0: what it is priced at."""
        text = rows(6, 12) if data is None else data
        stored = await asyncio.to_thread(self._stored, text)
        said = {"title": "Which answer is better?", "pay_sats": 10, "overlap": 2, "least_seconds": 1, **params}
        stage = StageSpec(name=STAGE, recipe="people", data=["rows.jsonl"], params=said)
        spec = JobSpec(
            name="people",
            stages=[stage, *self.then],
            trust=TrustSection(data_class="public"),
            budget=BudgetSection(max_sats=10**6),
        )
        facts = {STAGE: StageFacts(rows=text.count("\n"), tokens=1, input_bytes=len(text.encode()))}
        priced, world = quote(spec, facts, self.rates), self.engine.world()
        draft = Job(
            id=job,
            owner=OWNER,
            submission_id=job,
            name=spec.name,
            state=JobState.DRAFT,
            spec_json=spec.canonical_json(),
            facts_json=json.dumps({STAGE: {"rows": facts[STAGE].rows, "tokens": 1, "input_bytes": len(text.encode())}}),
            inputs_json=json.dumps({f"{STAGE}.data": stored}),
            quote_json=priced.to_json(),
            rates_json=self.rates.to_json(),
            budget_msat=budget_msat or priced.reserve_msat,
            created_ms=self.clock.now_ms(),
        )

        def work(tx: Transaction) -> list[Push]:
            deposit = Move(
                id=f"deposit/{job}",
                debit=external_account("simulated"),
                credit=user_account(OWNER),
                msat=10**9,
                reason="deposit",
                reference="test",
            )
            ledger.apply(tx, deposit, world.now_ms)
            tx.insert(draft)
            for row in _stages(job, spec, facts):
                tx.insert(row)
            return write_change(tx, job, open_job(draft), world) + start_next_stage(tx, job, world)

        await self.store.write(work)
        await self.effects()

    def _stored(self, text: str) -> str:
        folder = self.folder / hashlib.sha256(text.encode()).hexdigest()[:12]
        folder.mkdir(exist_ok=True)
        (folder / "00000-rows.jsonl").write_text(text)
        return self.desk.items._contents.put_folder(folder).id  # pyright: ignore[reportPrivateUsage]

    async def effects(self) -> None:
        """The executor finishes what is pending."""
        for effect in await self.all(Outbox, state=OutboxState.PENDING):
            await self.outbox._execute(effect)  # pyright: ignore[reportPrivateUsage]

    async def steer(self, event: MachineEvent, job: str = JOB) -> None:
        def work(tx: Transaction) -> list[Push]:
            row = tx.get(Job, job)
            assert row is not None
            return advance(tx, slice_of_job(tx, row), event, self.engine.world())

        await self.store.write(work)

    async def job(self, job: str = JOB) -> Job:
        return (await self.all(Job, id=job))[0]

    async def all(self, record: type[R], /, **equals: Any) -> list[R]:
        return await self.store.read(lambda tx: tx.find(record, **equals))

    async def put(self, row: Record) -> None:
        await self.store.write(lambda tx: tx.put(row))

    async def artifact(self, name: str, file: str) -> list[dict[str, Any]]:
        """Rows of one of the stage's outputs."""
        from shardwork_coordinator.records import Round

        found = [json.loads(one.results_json) for one in await self.all(Round, job_id=JOB)]
        artifact_id = next(one[name] for one in found if name in one)
        into = self.folder / f"read-{name}-{artifact_id[:8]}"
        contents = self.desk.items._contents  # pyright: ignore[reportPrivateUsage]
        if not into.exists():
            await asyncio.to_thread(contents.materialise, artifact_id, into)
        return [json.loads(line) for line in (into / file).read_text().splitlines()]

    async def later(self, seconds: float = 11.0) -> None:
        """Time passes, and the sweeper looks."""
        self.clock.advance(seconds)
        await sweep(self.engine)

    # ---- what must always hold -----------------------------------------------------------------------------------

    async def check_books(self) -> None:
        """The ledger balances; each paid vote, and nothing else, was paid once; no item has more than its quorum."""
        report = await self.store.read(ledger.check)
        assert report.balanced, [why.render() for why in report.violations]
        votes = await self.all(Vote)
        posts = [one for one in await self.all(Transfer, kind=TransferKind.POST) if one.reason == "shard"]
        by_party = dict[str, int]()
        for vote in votes:
            if vote.state is VoteState.PAID:
                by_party[vote.annotator] = by_party.get(vote.annotator, 0) + vote.price_msat
        paid = dict[str, int]()
        for post in posts:
            paid[post.credit.removeprefix("worker:")] = paid.get(post.credit.removeprefix("worker:"), 0) + post.msat
        assert paid == by_party
        assert len({post.resolves for post in posts}) == len(posts)
        people = await self.all(Annotator)
        assert len({(one.job_id, one.stage, one.number) for one in people}) == len(people)


@dataclass(slots=True)
class Person:
    """A browser with a key."""

    stand: Stand
    key: SigningKey
    #: the text of the answers as shown -> "a", "b", …
    answers: Callable[[dict[str, Any]], dict[str, Any]]
    seconds: float = 5.0
    name: str = "ann"

    @property
    def id(self) -> str:
        return party_id(self.key.public_key)

    def signed(self, method: str, path: str, body: bytes, *, time_ms: int | None = None) -> dict[str, str]:
        time = str(self.stand.clock.now_ms() if time_ms is None else time_ms)
        signature = self.key.sign(message(method, path, time, body))
        encoded = [base64.urlsafe_b64encode(one).decode().rstrip("=") for one in (self.key.public_key, signature)]
        return {"Shardwork-Key": encoded[0], "Shardwork-Time": time, "Shardwork-Signature": encoded[1]}

    async def post(self, call: str, /, **body: Any) -> httpx.Response:
        path, data = f"/people/api/{call}", json.dumps(body).encode()
        return await self.stand.client.post(path, content=data, headers=self.signed("POST", path, data))

    async def get(self, name: str) -> httpx.Response:
        path = f"/people/api/{name}"
        return await self.stand.client.get(path, headers=self.signed("GET", path, b""))

    async def ok(self, call: str, /, **body: Any) -> dict[str, Any]:
        answer = await self.post(call, **body)
        assert answer.status_code == 200, answer.text
        return cast("dict[str, Any]", answer.json())

    async def join(self, **more: Any) -> None:
        await self.ok("join", name=self.name, **more)

    async def next(self, job: str = JOB) -> dict[str, Any]:
        return await self.ok("next", job=job, stage=STAGE)

    async def do(self) -> dict[str, Any] | None:
        """One task, or None when there is none."""
        given = (await self.next())["task"]
        if given is None:
            return None
        self.stand.clock.advance(self.seconds)
        answer = await self.post("vote", lease=given["lease"], answer=self.answers(given), ms=int(self.seconds * 1000))
        # stopped by the answer before
        if answer.status_code == 409 and answer.json()["code"] == "people.not_looking":
            return None
        assert answer.status_code == 200, answer.text
        return cast("dict[str, Any]", answer.json())

    async def work(self, most: int = 1000) -> int:
        """Tasks until there are none; how many."""
        for done in range(most):
            if await self.do() is None:
                return done
        return most


def looks(task: Mapping[str, Any]) -> dict[str, Any]:
    """Somebody who reads."""
    return {"winner": "a" if task["answers"][0].startswith(BETTER) else "b"}


def always_first(task: Mapping[str, Any]) -> dict[str, Any]:
    return {"winner": "a"}


def guesses(seed: int) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    chosen = random.Random(seed)
    return lambda task: {"winner": chosen.choice("ab")}


@contextlib.asynccontextmanager
async def standing(folder: Path, store: Store | None = None) -> AsyncGenerator[Stand, None]:
    clock, store = ManualClock(), store or MemoryStore()
    store.start()
    engine = Engine(store, Links(), clock)
    contents = ArtifactStore.open(folder / "artifacts")
    desk = PeopleDesk(engine=engine, items=Items(contents), secret=b"s" * 32, joins=Buckets(10_000, 100.0))
    transport = httpx.ASGITransport(
        build(engine, Site(people=router(desk), contents=contents)), client=("127.0.0.1", 1)
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        outbox = OutboxRunner(engine, Here(folder))
        yield Stand(engine, clock, store, desk, folder, client, outbox)
    store.close()


def person(stand: Stand, number: int = 1, answers: Callable[[dict[str, Any]], dict[str, Any]] = looks) -> Person:
    return Person(stand, SigningKey(number.to_bytes(32, "big")), answers, name=f"person {number}")
