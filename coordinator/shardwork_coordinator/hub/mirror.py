"""Mirror: copies of allowed models as artifacts, made once, shared by everybody who names them.

A copy is a row of the house whose purpose is the pinned reference; whoever asks gets a row of his own and may use it as
if he had sent it. Facts (config, tokenizer, headers of the weights) are copied the same way, before any weights. A
copy that was cut short goes on where it stopped. In memory are only the copies under way. Called by `rpc.models`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from shardwork.artifact import Manifest
from shardwork.clock import Clock
from shardwork.errors import InvalidInput, LimitExceeded
from shardwork.models.folder import inspect_model
from shardwork.models.hub import HEADERS, SIZES, HubModel, check_pinned, unfold, write_facts
from shardwork.tensors.header import MAX_HEADER_BYTES

from ..artifacts import ArtifactStore
from ..artifacts.retention import ENDED, HOUSE, HUB
from ..records import Artifact, ArtifactState, Job
from ..store.base import Store, Transaction
from .source import HubFile, HubSource, Listing

#: purpose of the facts of a model
FACTS = HUB + "facts:"
COPIES_AT_ONCE = 2
#: copies under way of one party
OF_ONE_MAX = 2
#: what an attempt left is removed when nobody came back for so long
ABANDONED_S = 24 * 3600.0
#: left free on the disk beside a copy, which lies there twice for a moment
RESERVE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    pinned: HubModel
    artifact_id: str
    total_bytes: int


@dataclass(slots=True)
class Copy:
    """One copy under way, or its end."""

    party: str
    done_bytes: int = 0
    total_bytes: int = 0
    artifact_id: str = ""
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def is_over(self) -> bool:
        return self.task is not None and self.task.done()


class HubMirror:
    def __init__(self, source: HubSource, rows: Store, contents: ArtifactStore, clock: Clock, scratch: Path) -> None:
        self._source, self._store, self._contents, self._clock = source, rows, contents, clock
        self._scratch = scratch
        self._copies: dict[str, Copy] = {}
        self._slots = asyncio.Semaphore(COPIES_AT_ONCE)
        self._resolving = asyncio.Semaphore(COPIES_AT_ONCE)

    def allow(self, patterns: Sequence[str]) -> None:
        """Other models may be asked for, from the next call on."""
        self._source.rules = replace(self._source.rules, allow=tuple(patterns))

    async def close(self) -> None:
        """Stops what is under way; it goes on when somebody asks again."""
        tasks = [copy.task for copy in self._copies.values() if copy.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._source.close()

    async def resolve(self, reference: str, party: str) -> Facts:
        """The pinned model and its facts as an artifact that the party may read. Raises NotAllowed "hub.not_allowed",
        what `HubSource` raises, and InvalidInput "model.*" for a model that can't be trained."""
        model = HubModel.parse(reference)
        self._source.rules.check_allowed(model)
        async with self._resolving:
            if model.is_pinned and (known := await self._known(f"{FACTS}{model}")):
                await self._grant(known, party)
                return Facts(pinned=model, artifact_id=known.id, total_bytes=await self._weighed(known.id))
            listing = await self._source.resolve(model)
            chosen = await self._source.chosen(listing)
            total = sum(each.bytes for each in chosen)
            purpose = f"{FACTS}{listing.model}"
            row = await self._known(purpose)
            if row is None:
                row = await self._store_facts(listing, chosen, purpose)
            await self._grant(row, party)
        return Facts(pinned=listing.model, artifact_id=row.id, total_bytes=total)

    async def mirror(self, pinned: str, party: str) -> Copy:
        """Starts the copy or says how far it is; once complete the party may use it. What ended it badly is raised
        once, and the next call tries again. Raises InvalidInput "hub.not_pinned", LimitExceeded
        "hub.too_many_copies"."""
        model = check_pinned(pinned)
        self._source.rules.check_allowed(model)
        known = await self._known(str(model))
        if known is not None:
            self._copies.pop(pinned, None)
            await self._grant(known, party)
            return Copy(party, known.bytes, known.bytes, known.id)
        copy = self._copies.get(pinned)
        if copy is None:
            copy = self._begin(model, party)
        elif copy.is_over and copy.task is not None:
            del self._copies[pinned]
            copy.task.result()
            # it ended well since its row was looked for, and this party has no right to it yet
            return await self.mirror(pinned, party)
        return copy

    def _begin(self, model: HubModel, party: str) -> Copy:
        if sum(1 for copy in self._copies.values() if copy.party == party and not copy.is_over) >= OF_ONE_MAX:
            raise LimitExceeded(
                "hub.too_many_copies",
                "You have too many models on their way already.",
                next_step="Wait until one of them is here.",
                limit=OF_ONE_MAX,
            )
        copy = self._copies[str(model)] = Copy(party)
        copy.task = asyncio.create_task(self._copy(model, copy), name=f"mirror {model}")
        return copy

    async def _copy(self, model: HubModel, copy: Copy) -> None:
        async with self._slots:
            listing = await self._source.resolve(model)
            chosen = await self._source.chosen(listing)
            copy.total_bytes = sum(each.bytes for each in chosen)
            await self._make_room(copy.total_bytes)
            folder = self._scratch / f"{model.organisation}--{model.name}@{model.revision}"
            await asyncio.to_thread(_prepare, folder)
            for file in chosen:
                await self._fetch(listing, file, folder, copy)
            await asyncio.to_thread(_inspect, folder, model)
            manifest = await asyncio.to_thread(self._contents.put_folder, folder)
            await self._keep_row(manifest, str(model))
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            copy.artifact_id = manifest.id

    async def _fetch(self, listing: Listing, file: HubFile, folder: Path, copy: Copy) -> None:
        into = folder / file.name
        if into.exists():
            copy.done_bytes += file.bytes
            return
        start = copy.done_bytes
        part = folder / (file.name + ".part")
        copy.done_bytes += part.stat().st_size if part.exists() else 0

        def told(count: int) -> None:
            copy.done_bytes = min(copy.done_bytes + count, start + file.bytes)

        await self._source.fetch(listing, file, into, told)
        copy.done_bytes = start + file.bytes

    async def _store_facts(self, listing: Listing, chosen: list[HubFile], purpose: str) -> Artifact:
        self._scratch.mkdir(parents=True, exist_ok=True)
        place = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._scratch, prefix="facts-"))
        folder, model = place / "facts", place / "model"
        try:
            (folder / HEADERS).mkdir(parents=True)
            weights = [each for each in chosen if each.name.endswith(".safetensors")]
            for file in chosen:
                if file not in weights:
                    (folder / file.name).write_bytes(await self._source.companion(listing, file))
            for file in weights:
                (folder / HEADERS / file.name).write_bytes(await self._header(listing, file))
            write_facts(folder, {each.name: each.bytes for each in weights})
            # what can't be trained is refused before anybody plans with it
            await asyncio.to_thread(unfold, folder, model)
            await asyncio.to_thread(_inspect, model, listing.model)
            manifest = await asyncio.to_thread(self._contents.put_folder, folder)
        finally:
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        return await self._keep_row(manifest, purpose)

    async def _header(self, listing: Listing, file: HubFile) -> bytes:
        """The file's first bytes to the end of its header; one that is not sound is `inspect_model`'s to refuse."""
        first = await self._source.piece(listing, file, 0, min(8, file.bytes))
        length = min(int.from_bytes(first, "little"), MAX_HEADER_BYTES, max(file.bytes - 8, 0))
        return first + (await self._source.piece(listing, file, 8, length) if length else b"")

    async def _weighed(self, facts_id: str) -> int:
        """Bytes of the model that stored facts speak of."""

        def read() -> int:
            manifest = self._contents.manifest(facts_id)
            start, count = manifest.leaf_span(SIZES)
            sizes: dict[str, int] = json.loads(b"".join(self._contents.read_leaves(facts_id, start, count)))
            others = (file.size for file in manifest.files if "/" not in file.path and file.path != SIZES)
            return sum(sizes.values()) + sum(others)

        return await asyncio.to_thread(read)

    async def _known(self, purpose: str) -> Artifact | None:
        """The house's stored copy with this purpose, which stays for a while from now on."""
        rows = await self._store.read(
            lambda tx: tx.find(Artifact, owner=HOUSE, purpose=purpose, state=ArtifactState.STORED)
        )
        for row in rows:
            if await asyncio.to_thread(self._contents.keep, row.id):
                return row
        return None

    async def _keep_row(self, manifest: Manifest, purpose: str) -> Artifact:
        row = Artifact(
            id=manifest.id,
            owner=HOUSE,
            purpose=purpose,
            state=ArtifactState.STORED,
            bytes=manifest.total_bytes,
            leaves=manifest.leaf_count,
            created_ms=self._clock.now_ms(),
        )

        def work(tx: Transaction) -> None:
            tx.put(row)

        await self._store.write(work)
        return row

    async def _grant(self, row: Artifact, party: str) -> None:
        """The party may read it, and both rows count as used now."""
        now_ms = self._clock.now_ms()

        def work(tx: Transaction) -> None:
            for owner in (HOUSE, party):
                known = tx.get(Artifact, row.id, owner)
                purpose = known.purpose if known and known.state is ArtifactState.STORED else row.purpose
                tx.put(replace(row, owner=owner, purpose=purpose, created_ms=now_ms))

        await self._store.write(work)

    async def _make_room(self, needed_bytes: int) -> None:
        """Gives up copies that no running job uses, least recently used first. Raises LimitExceeded "hub.cache_full"
        and "hub.no_space"."""
        free = self._contents.free_bytes()
        if free < 2 * needed_bytes + RESERVE_BYTES:
            raise LimitExceeded(
                "hub.no_space",
                "The coordinator's disk has no room for this model.",
                next_step="Ask the operator to free space.",
                needed_bytes=2 * needed_bytes,
                free_bytes=free,
            )
        limit = self._source.rules.cache_bytes

        def work(tx: Transaction) -> None:
            kept = [row for row in tx.find(Artifact, owner=HOUSE, state=ArtifactState.STORED) if _is_copy(row)]
            excess = sum(row.bytes for row in kept) + needed_bytes - limit
            live = [job for job in tx.find(Job) if job.state not in ENDED] if excess > 0 else []
            used = {one for job in live for one in json.loads(job.inputs_json).values()}
            for row in sorted(kept, key=lambda row: row.created_ms):
                if excess > 0 and row.id not in used:
                    tx.put(replace(row, state=ArtifactState.STAGING))
                    excess -= row.bytes
            if excess > 0:
                raise LimitExceeded(
                    "hub.cache_full",
                    "The models that running jobs use leave no room for this one.",
                    next_step="Try again when some of them have ended, or ask the operator for a larger hub_cache_gib.",
                    needed_bytes=needed_bytes,
                    limit_bytes=limit,
                )

        await self._store.write(work)


def _is_copy(row: Artifact) -> bool:
    return row.purpose.startswith(HUB) and not row.purpose.startswith(FACTS)


def _prepare(folder: Path) -> None:
    """The copy's folder, with what an earlier attempt left in it; what nobody came back for is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.iterdir():
        if left != folder and time.time() - left.stat().st_mtime > ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)
    folder.mkdir(exist_ok=True)


def _inspect(folder: Path, model: HubModel) -> None:
    """Raises what `inspect_model` raises, in words that tell nothing of the operator's disk."""
    try:
        inspect_model(folder)
    except InvalidInput as error:
        why = error.why
        evidence = {
            key: value.replace(f"{folder}/", "").replace(str(folder), "") for key, value in why.evidence.items()
        }
        sentence = why.sentence.replace(str(folder), str(model))
        told = {**evidence, "model": str(model)}
        raise InvalidInput(why.code, sentence, next_step="Choose another model or revision.", **told) from error
