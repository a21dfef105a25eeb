"""One lease from offer to verdict: fetch, compute, commit, draw, upload, submit.

Owns the order of these steps and what is journalled between them. It does not decide what to accept (the agent does)
and reports an end instead of raising, except when it is cancelled: then the caller says why. A lease found in the
journal goes on behind its last durable step.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

from shardwork import work
from shardwork.artifact import Manifest, describe_folder
from shardwork.clock import Clock
from shardwork.errors import Conflict, Corrupt, LimitExceeded, ShardworkError, StaleLease, Unreachable
from shardwork.identity.keys import SigningKey
from shardwork.ids import sha256_hex
from shardwork.session import Session, backoff_s
from shardwork.transfer import upload_folder
from shardwork.v1 import types_pb2, work_pb2
from shardwork.why import Why
from shardwork.wire import why_from_proto

from .cache import Cache
from .inputs import InputFetcher
from .log import say
from .offer import SignedOffer
from .sandbox.choice import OFF, Sandbox
from .sandbox.jail import OUTPUT_BYTES
from .sandbox.watch import within
from .state_file import Computed, Journal, LeaseRecord
from .trainer_process import RunOrder, TrainerProcess

#: clocks of two machines are not compared: a deadline that looks past or near still leaves this long to hand in
LEAST_PATIENCE_S = 300.0
#: said of this disk while fetching, of the coordinator's while uploading
NO_SPACE = "artifact.no_space"

T = TypeVar("T")


class Step(StrEnum):
    FETCHING = "fetching"
    COMPUTING = "computing"
    COMMITTING = "committing"
    UPLOADING = "uploading"


class Outcome(StrEnum):
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    #: handed in; the verdict comes as a Settlement
    PENDING = "pending"
    #: the coordinator no longer counts on us: nothing to release
    LOST = "lost"
    #: we cannot finish it: release it with the reason
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    outcome: Outcome
    why: Why | None = None
    paid_msat: int = 0
    #: what handed a pending result in: sent again, it is answered with the verdict
    request: work_pb2.SubmitResultRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """What a lease works with; one per agent."""

    session: Session
    trainer: TrainerProcess
    cache: Cache
    journal: Journal
    key: SigningKey
    clock: Clock
    device: str
    #: one folder per lease in it, for outputs
    work_folder: Path
    #: finished outputs, which the child does not see
    handed_folder: Path
    #: all that one shard may write there
    output_bytes: int = OUTPUT_BYTES
    #: a shard whose missing inputs are larger is given back; None: any
    input_bytes: int | None = None
    #: what shuts the child in
    sandbox: Sandbox = OFF
    #: called when the session may know more coordinators of the cluster, or others
    on_peers: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class RebuildingInside:
    """Rebuilds where the child may write, then moves the checkpoint to where it may not."""

    trainer: TrainerProcess
    work_folder: Path

    async def rebuild(self, *, checkpoint: Path, step: Path, moments: Path, into: Path) -> None:
        inside = self.work_folder / f"rebuilt-{into.stem[:16]}"
        shutil.rmtree(inside, ignore_errors=True)
        try:
            await self.trainer.rebuild(checkpoint=checkpoint, step=step, moments=moments, into=inside)
            inside.replace(into)
        finally:
            shutil.rmtree(inside, ignore_errors=True)


class Lease:
    """A lease in hand. `run` it once."""

    def __init__(self, place: Workplace, offer: SignedOffer, record: LeaseRecord | None = None) -> None:
        self.offer = offer
        self.step = Step.FETCHING
        self.progress = 0.0
        self.loss: float | None = None
        self._place = place
        self._record = record or LeaseRecord(offer=offer.envelope)
        name = sha256_hex(offer.lease_id.encode())[:16]
        self._folder = place.work_folder / name
        #: where its outputs are hashed and uploaded from: the child, which lives on, reaches nothing there
        self._handed = place.handed_folder / name
        self._give_up_at = place.clock.monotonic() + max(
            LEAST_PATIENCE_S, (offer.lease.deadline_unix_ms - place.clock.now_ms()) / 1000
        )

    @property
    def folder(self) -> Path:
        """Where its outputs lie until it ends."""
        return self._handed

    def status(self) -> work_pb2.LeaseStatus:
        return work_pb2.LeaseStatus(
            lease_id=self.offer.lease_id, progress=self.progress, loss=self.loss, step=self.step.value
        )

    async def run(self) -> Ended:
        """To its end. Cancelling it interrupts the child; what is in the journal stays until `clear`."""
        try:
            return await self._run()
        except (StaleLease, Unreachable) as error:
            return Ended(outcome=Outcome.LOST, why=error.why)
        except LimitExceeded as error:
            if error.code != NO_SPACE or self.step is not Step.FETCHING:
                return Ended(outcome=Outcome.FAILED, why=error.why)
            why = Why(
                code="worker.disk_full",
                sentence="The worker's disk has no room for the shard's inputs.",
                evidence=error.why.evidence,
                next_step="Free some space on the disk of the worker's cache folder.",
            )
            return Ended(outcome=Outcome.FAILED, why=why)
        except ShardworkError as error:
            return Ended(outcome=Outcome.FAILED, why=error.why)
        except OSError as error:
            why = Why(
                code="worker.disk_failed",
                sentence="The worker's disk refused a file.",
                # no path: this reason also goes to the coordinator
                evidence={"error": error.strerror or type(error).__name__},
                next_step="Look for free space and permissions in the worker's cache and state folders.",
            )
            return Ended(outcome=Outcome.FAILED, why=why)

    def clear(self) -> None:
        """Forgets the lease and its outputs. A disk that refuses even that must not keep the lease in hand for ever."""
        try:
            self._place.journal.forget()
        except OSError as error:
            say(f"the journal could not be removed, a restart will find a lease that is over: {error}")
        shutil.rmtree(self._handed, ignore_errors=True)
        empty(self._place.work_folder)

    async def _run(self) -> Ended:
        manifests = await self._journalled_outputs()
        if manifests is None:
            manifests = await self._compute()
        await self._commit()
        await self._upload(manifests)
        return await self._submit()

    async def _journalled_outputs(self) -> dict[str, Manifest] | None:
        """Outputs that an earlier process computed, if their folders still hold exactly those bytes."""
        computed = self._record.computed
        if computed is None:
            return None
        try:
            manifests = await _describe(computed)
        except (ShardworkError, OSError):
            return None
        found = {name: str(manifest.id) for name, manifest in manifests.items()}
        return manifests if found == dict(computed.artifact_ids) else None

    async def _compute(self) -> dict[str, Manifest]:
        self._keep(LeaseRecord(offer=self.offer.envelope))
        inputs = await self._fetch()
        self.step, self.progress = Step.COMPUTING, 0.0
        for folder in (self._folder, self._handed):
            shutil.rmtree(folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700, parents=True)
        place = self._place
        running = place.trainer.run(self._run_order(inputs), self._on_progress)
        # the whole folder that the child may write: beside its own it would fill the disk unseen
        done = await within(running, place.work_folder, limit_bytes=place.output_bytes, kill=place.trainer.stop)
        outputs = self._take_away(done.outputs)
        computed = Computed(
            outputs={name: str(folder) for name, folder in outputs.items()},
            artifact_ids={},
            metrics=done.metrics,
            compute_ms=done.compute_ms,
        )
        manifests = await _describe(computed)
        ids = {name: str(manifest.id) for name, manifest in manifests.items()}
        self._keep(replace(self._record, computed=replace(computed, artifact_ids=ids)))
        return manifests

    async def _fetch(self) -> dict[str, Path]:
        place = self._place
        rebuilder = RebuildingInside(place.trainer, place.work_folder)
        fetcher = InputFetcher(place.session, place.cache, rebuilder, self._on_fetch, limit_bytes=place.input_bytes)
        folders = await self._persist(lambda: fetcher.fetch(self.offer.inputs))
        self._record = replace(self._record, bytes_down=fetcher.bytes_down)
        return folders

    async def _commit(self) -> None:
        """Binds us to the output root before the draw; the draw is empty until audits exist."""
        self.step, self.progress = Step.COMMITTING, 1.0
        computed = self._computed
        commitment = work_pb2.Commitment(
            lease_id=self.offer.lease_id,
            lease_sha256=self.offer.digest,
            output_root=work.output_root(computed.artifact_ids, computed.metrics),
        )
        envelope = work.seal_commitment(self._place.key, commitment)
        session = self._place.session
        request = work_pb2.CommitResultRequest(envelope=envelope)
        response = await self._persist(lambda: session.call(session.work.CommitResult, request))
        if response.drawn_segments:
            sentence = "The coordinator asks for audit segments, which this version cannot hand in."
            raise Conflict("worker.audit_unknown", sentence, next_step="Upgrade the worker.")

    async def _upload(self, manifests: dict[str, Manifest]) -> None:
        self.step = Step.UPLOADING
        session, lease_id = self._place.session, self.offer.lease_id
        for name, manifest in sorted(manifests.items()):
            folder = Path(self._computed.outputs[name])
            await self._persist(partial(upload_folder, session, folder, purpose=lease_id, manifest=manifest))

    async def _submit(self) -> Ended:
        if not self._record.submission:
            # the coordinator answers a repeated envelope as it did the first time, so its bytes are kept
            self._keep(replace(self._record, submission=self._submission()))
        session = self._place.session
        submission = work_pb2.Submission.FromString(self._record.submission)
        request = work_pb2.SubmitResultRequest(envelope=work.seal_submission(self._place.key, submission))
        return verdict(request, await self._persist(lambda: session.call(session.work.SubmitResult, request)))

    def _submission(self) -> bytes:
        computed = self._computed
        return work_pb2.Submission(
            lease_id=self.offer.lease_id,
            lease_sha256=self.offer.digest,
            outputs=[
                types_pb2.NamedArtifact(name=name, artifact_id=artifact_id)
                for name, artifact_id in sorted(computed.artifact_ids.items())
            ],
            metrics=[types_pb2.Metric(name=name, value=value) for name, value in sorted(computed.metrics.items())],
            compute_ms=computed.compute_ms,
            bytes_down=self._record.bytes_down,
            bytes_up=sum(_folder_bytes(Path(folder)) for folder in computed.outputs.values()),
        ).SerializeToString(deterministic=True)

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Tries again through lost connections and a coordinator's full disk, until the lease's time is over."""
        clock = self._place.clock
        for number in count():
            try:
                return await attempt()
            except (Unreachable, LimitExceeded) as error:
                theirs = isinstance(error, Unreachable) or (error.code == NO_SPACE and self.step is Step.UPLOADING)
                if not theirs or clock.monotonic() > self._give_up_at:
                    raise
            # beyond ten doublings the span is capped anyway
            await asyncio.sleep(backoff_s(min(number, 10)))
        raise AssertionError("count has no end")

    def _run_order(self, inputs: dict[str, Path]) -> RunOrder:
        lease = self.offer.lease
        return RunOrder(
            lease_id=lease.lease_id,
            phase=lease.phase,
            recipe=lease.recipe,
            order_json=lease.params_json,
            seed=lease.seed,
            inputs=inputs,
            output_dir=self._folder,
            device=self._place.device,
        )

    def _take_away(self, outputs: Mapping[str, Path]) -> dict[str, Path]:
        """Moves the shard's folder out of the child's reach, then looks at what it is: hostile code in there could
        exchange a folder for a link to the owner's key between our look and our reading."""
        inside = {name: folder.relative_to(self._folder) for name, folder in outputs.items() if self._is_below(folder)}
        if len(inside) != len(outputs):
            raise _outside()
        self._handed.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.rename(self._handed)
        taken = {name: self._handed / path for name, path in inside.items()}
        if any(not folder.resolve().is_relative_to(self._handed.resolve()) for folder in taken.values()):
            raise _outside()
        return taken

    def _is_below(self, folder: Path) -> bool:
        return folder.is_relative_to(self._folder) and ".." not in folder.parts

    @property
    def _computed(self) -> Computed:
        assert self._record.computed is not None
        return self._record.computed

    def _keep(self, record: LeaseRecord) -> None:
        self._record = record
        self._place.journal.save(record)

    def _on_progress(self, fraction: float, loss: float | None) -> None:
        self.progress = min(max(fraction, 0.0), 1.0)
        self.loss = self.loss if loss is None else loss

    def _on_fetch(self, fraction: float) -> None:
        self.progress = fraction


def empty(folder: Path) -> None:
    """Takes away all that a shard left there, in the folder it was given or beside it; no later shard may find it."""
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _outside() -> Corrupt:
    """A child that names a folder elsewhere would make us upload other files of this machine."""
    sentence = "The training child named an output outside the shard's folder."
    return Corrupt("trainer.output_outside", sentence)


def verdict(request: work_pb2.SubmitResultRequest, response: work_pb2.SubmitResultResponse) -> Ended:
    """How a lease ended by the coordinator's answer to its submission."""
    why = why_from_proto(response.why) if response.HasField("why") else None
    known = {Outcome.ACCEPTED.value, Outcome.REJECTED.value}
    outcome = Outcome(response.state) if response.state in known else Outcome.PENDING
    return Ended(outcome=outcome, why=why, paid_msat=response.paid_msat, request=request)


async def _describe(computed: Computed) -> dict[str, Manifest]:
    """Hashes every output; native code that releases the interpreter, so heartbeats go on."""
    return {
        name: await asyncio.to_thread(describe_folder, Path(folder))
        for name, folder in sorted(computed.outputs.items())
    }


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
