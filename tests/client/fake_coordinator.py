"""A coordinator for the client's tests: real TLS, enrolment and wire, answers kept in memory and set by the test.

Runs on threads (the synchronous gRPC server), because the commands under test own the event loop. `Fake.watch_script`
is what WatchJob plays; a `Cut` in it ends the stream as a restarting coordinator would.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from shardwork.artifact import Manifest, leaf_digest
from shardwork.clock import SystemClock
from shardwork.errors import Conflict, NotAuthenticated, NotEnoughFunds, NotFound, ShardworkError
from shardwork.identity.envelope import open_envelope
from shardwork.identity.keys import SigningKey
from shardwork.identity.role import role_from_proto
from shardwork.ids import party_id
from shardwork.protocol import ENROLMENT_TYPE, PROTOCOL_VERSIONS
from shardwork.v1 import (
    artifacts_pb2,
    artifacts_pb2_grpc,
    enrolment_pb2,
    enrolment_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    types_pb2,
    wallet_pb2,
    wallet_pb2_grpc,
)
from shardwork.why import Why
from shardwork.wire import DETAILS_KEY, ERROR_CLASS_KEY, why_to_proto
from shardwork_coordinator.rpc.auth import Tokens
from shardwork_coordinator.rpc.enrolment import Challenges
from shardwork_coordinator.tls import Authority

Context = Any
LEAF = 1 << 20
NOW_MS = 1_795_400_000_000


@dataclass(frozen=True, slots=True)
class Cut:
    """In a watch script: the connection breaks here."""

    status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Hold:
    """In a watch script: nothing more comes until the client leaves."""


@dataclass(slots=True)
class Fake:
    """What the coordinator knows. Tests write it directly."""

    authority: Authority
    tokens: Tokens
    key: SigningKey
    challenges: Challenges
    jobs: dict[str, jobs_pb2.JobView] = field(default_factory=dict[str, jobs_pb2.JobView])
    reports: dict[str, jobs_pb2.GetJobReportResponse] = field(default_factory=dict[str, jobs_pb2.GetJobReportResponse])
    people: list[jobs_pb2.PeopleProgress] = field(default_factory=list[jobs_pb2.PeopleProgress])
    #: stages of every ClosePeople call
    closed: list[str] = field(default_factory=list[str])
    events: list[jobs_pb2.JobEvent] = field(default_factory=list[jobs_pb2.JobEvent])
    watch_script: list[jobs_pb2.WatchJobResponse | Cut | Hold] = field(
        default_factory=list[jobs_pb2.WatchJobResponse | Cut | Hold]
    )
    #: every ListJobEvents request
    listed: list[jobs_pb2.ListJobEventsRequest] = field(default_factory=list[jobs_pb2.ListJobEventsRequest])
    #: coordinators of earlier versions do not
    pages_backwards: bool = True
    #: after_sequence of every WatchJob call, and whether it asked for details
    watched_from: list[int] = field(default_factory=list[int])
    details_asked: list[bool] = field(default_factory=list[bool])
    #: idempotency key -> msat
    top_ups: dict[str, int] = field(default_factory=dict[str, int])
    watching: threading.Event = field(default_factory=threading.Event)
    quote: jobs_pb2.Quote = field(default_factory=jobs_pb2.Quote)
    quoted: list[jobs_pb2.QuoteJobRequest] = field(default_factory=list[jobs_pb2.QuoteJobRequest])
    submitted: list[jobs_pb2.SubmitJobRequest] = field(default_factory=list[jobs_pb2.SubmitJobRequest])
    #: how many answers of SubmitJob and TopUpJob get lost after it was done
    lose_answers: int = 0
    available_msat: int = 0
    held_msat: int = 0
    simulated: bool = True
    deposits: dict[str, wallet_pb2.Deposit] = field(default_factory=dict[str, wallet_pb2.Deposit])
    deposit_keys: dict[str, str] = field(default_factory=dict[str, str])
    #: deposits stay open for this many GetDeposit calls
    polls_until_paid: int = 0
    withdrawals: dict[str, wallet_pb2.Withdrawal] = field(default_factory=dict[str, wallet_pb2.Withdrawal])
    #: what becomes of a withdrawal when it is asked for
    withdrawal_end: str = "settled"
    transfers: list[wallet_pb2.TransferView] = field(default_factory=list[wallet_pb2.TransferView])
    manifests: dict[str, Manifest] = field(default_factory=dict[str, Manifest])
    stored: dict[str, bytearray] = field(default_factory=dict[str, bytearray])
    #: artifact id and first leaf of every UploadLeaves stream
    uploads: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    downloads: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    names: list[str] = field(default_factory=list[str])
    #: error that the next call of any kind answers with
    refuse: ShardworkError | None = None
    address: str = ""
    #: further coordinators of its cluster, as it tells whoever enrols
    others: list[str] = field(default_factory=list[str])

    @property
    def join(self) -> str:
        return f"shardwork://{self.address}?ca={self.authority.ca_sha256}"

    def admit(self, context: Context) -> None:
        """Checks the token as the real gate does, then any refusal that the test asked for."""
        for name, value in context.invocation_metadata():
            if name == "authorization":
                self.tokens.verify(value.removeprefix("Bearer "))
                break
        else:
            raise NotAuthenticated("auth.no_token", "The call carries no token.")
        if self.refuse is not None:
            raise self.refuse

    def find(self, job_id: str) -> jobs_pb2.JobView:
        found = [job for known, job in self.jobs.items() if known.startswith(job_id)]
        if len(found) != 1:
            raise NotFound("job.unknown", f"There is no job {job_id}.", next_step="See them with: shardwork job list")
        return found[0]

    def store_artifact(self, manifest: Manifest, data: bytes) -> str:
        self.manifests[manifest.id] = manifest
        self.stored[manifest.id] = bytearray(data)
        return manifest.id


def abort(context: Context, error: ShardworkError) -> NoReturn:
    """`shardwork.wire.abort_with` for the synchronous server."""
    code = grpc.StatusCode[error.grpc_status]
    status = Status(code=code.value[0], message=error.why.sentence)
    status.details.add().Pack(why_to_proto(error.why))
    context.set_trailing_metadata(((ERROR_CLASS_KEY, type(error).__name__), (DETAILS_KEY, status.SerializeToString())))
    context.abort(code, error.why.sentence)
    raise AssertionError("abort raises")


def answered(fake: Fake, context: Context, handler: Callable[[], Any]) -> Any:
    try:
        fake.admit(context)
        return handler()
    except ShardworkError as error:
        abort(context, error)


class Enrolment(enrolment_pb2_grpc.EnrolmentServiceServicer):
    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    def GetAuthority(self, request: Any, context: Context) -> Any:
        return enrolment_pb2.GetAuthorityResponse(
            ca_pem=self.fake.authority.ca_pem,
            coordinator_version="0",
            protocol_versions=PROTOCOL_VERSIONS,
            coordinator_public_key=self.fake.key.public_key,
        )

    def GetChallenge(self, request: Any, context: Context) -> Any:
        return enrolment_pb2.GetChallengeResponse(nonce=self.fake.challenges.issue(request.public_key))

    def Enrol(self, request: Any, context: Context) -> Any:
        key = request.envelope.public_key
        answer = enrolment_pb2.Enrolment.FromString(open_envelope(request.envelope, ENROLMENT_TYPE))
        try:
            self.fake.challenges.redeem(answer.nonce, key)
        except ShardworkError as error:
            abort(context, error)
        self.fake.names.append(answer.name)
        token = self.fake.tokens.issue(key, role_from_proto(answer.role))
        return enrolment_pb2.EnrolResponse(
            token=token.text,
            expires_unix_ms=token.expires_ms,
            party_id=party_id(key),
            protocol_version=max(PROTOCOL_VERSIONS),
            addresses=[self.fake.address, *self.fake.others] if self.fake.others else [],
        )


class Jobs(jobs_pb2_grpc.JobsServiceServicer):
    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    def QuoteJob(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            self.fake.quoted.append(request)
            return jobs_pb2.QuoteJobResponse(quote=self.fake.quote)

        return answered(self.fake, context, handle)

    def SubmitJob(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            fake = self.fake
            fake.submitted.append(request)
            job_id = f"job{request.submission_id[:9]}"
            if job_id not in fake.jobs:
                if fake.available_msat < fake.quote.reserve_msat:
                    raise NotEnoughFunds("ledger.insufficient", "The wallet cannot cover the reserve.")
                fake.available_msat -= fake.quote.reserve_msat
                fake.held_msat += fake.quote.reserve_msat
                fake.jobs[job_id] = jobs_pb2.JobView(id=job_id, name="tutor", state="running", created_unix_ms=NOW_MS)
            if fake.lose_answers:
                fake.lose_answers -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
            return jobs_pb2.SubmitJobResponse(job_id=job_id, quote=fake.quote)

        return answered(self.fake, context, handle)

    def ListJobs(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            jobs = [job for job in self.fake.jobs.values() if not request.states or job.state in request.states]
            at = int(request.page_token or 0)
            more = at + request.page_size
            token = str(more) if more < len(jobs) else ""
            return jobs_pb2.ListJobsResponse(jobs=jobs[at:more], next_page_token=token)

        return answered(self.fake, context, handle)

    def GetJob(self, request: Any, context: Context) -> Any:
        return answered(self.fake, context, lambda: jobs_pb2.GetJobResponse(job=self.fake.find(request.job_id)))

    def GetJobReport(self, request: Any, context: Context) -> Any:
        return answered(self.fake, context, lambda: self.fake.reports[self.fake.find(request.job_id).id])

    def ListJobEvents(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            self.fake.find(request.job_id)
            self.fake.listed.append(request)
            size = min(request.limit or 100, 2)
            if request.before_sequence and self.fake.pages_backwards:
                older = [event for event in self.fake.events if event.sequence < request.before_sequence]
                return jobs_pb2.ListJobEventsResponse(events=older[-size:])
            found = [event for event in self.fake.events if event.sequence > request.after_sequence]
            return jobs_pb2.ListJobEventsResponse(events=found[:size])

        return answered(self.fake, context, handle)

    def WatchJob(self, request: Any, context: Context) -> Iterator[Any]:
        answered(self.fake, context, lambda: self.fake.find(request.job_id))
        self.fake.watched_from.append(request.after_sequence)
        self.fake.details_asked.append(request.details)
        # a script that is set while the stream before still ends is for the next one
        script = self.fake.watch_script
        while script:
            step = script.pop(0)
            if isinstance(step, Cut) and step.status is grpc.StatusCode.OK:
                return
            if isinstance(step, Cut):
                context.abort(step.status, "the coordinator restarts")
            elif isinstance(step, Hold):
                self.fake.watching.set()
                left = threading.Event()
                context.add_callback(left.set)
                left.wait(30)
                return
            else:
                yield step

    def _set_state(self, request: Any, state: str) -> jobs_pb2.JobView:
        job = self.fake.find(request.job_id)
        if job.state in ("succeeded", "failed", "cancelled"):
            raise Conflict("job.final", f"The job has already {job.state}.", state=job.state)
        job.state = state
        return job

    def PauseJob(self, request: Any, context: Context) -> Any:
        return answered(self.fake, context, lambda: jobs_pb2.PauseJobResponse(job=self._set_state(request, "paused")))

    def ResumeJob(self, request: Any, context: Context) -> Any:
        return answered(self.fake, context, lambda: jobs_pb2.ResumeJobResponse(job=self._set_state(request, "running")))

    def CancelJob(self, request: Any, context: Context) -> Any:
        return answered(
            self.fake, context, lambda: jobs_pb2.CancelJobResponse(job=self._set_state(request, "cancelled"))
        )

    def TopUpJob(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            job = self.fake.find(request.job_id)
            if request.idempotency_key not in self.fake.top_ups:
                self.fake.top_ups[request.idempotency_key] = request.msat
                job.budget_msat += request.msat
                job.topped_up_msat += request.msat
            if self.fake.lose_answers:
                self.fake.lose_answers -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
            return jobs_pb2.TopUpJobResponse(job=job)

        return answered(self.fake, context, handle)

    def GetPeopleProgress(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            job = self.fake.find(request.job_id)
            found = [one for one in self.fake.people if request.stage in ("", one.stage)]
            return jobs_pb2.GetPeopleProgressResponse(job_id=job.id, stages=found)

        return answered(self.fake, context, handle)

    def ClosePeople(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            job = self.fake.find(request.job_id)
            self.fake.closed.append(request.stage)
            return jobs_pb2.ClosePeopleResponse(job=job)

        return answered(self.fake, context, handle)

    def PreviewJobControl(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            job = self.fake.find(request.job_id)
            why = Why(code=f"cost.{request.action}", sentence="2 shards run.", next_step="Go on.")
            return jobs_pb2.PreviewJobControlResponse(
                why=why_to_proto(why),
                running_shards=2,
                running_msat=2_040,
                running_paid=request.action != "cancel",
                refund_msat=job.reserved_msat if request.action == "cancel" else 0,
                stays_reserved_msat=0 if request.action == "cancel" else job.reserved_msat,
                from_balance_msat=request.msat,
            )

        return answered(self.fake, context, handle)


class Wallet(wallet_pb2_grpc.WalletServiceServicer):
    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    def CreateDeposit(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            fake = self.fake
            known = fake.deposit_keys.setdefault(request.idempotency_key, f"dep{len(fake.deposits)}")
            if known not in fake.deposits:
                fake.deposits[known] = wallet_pb2.Deposit(
                    id=known,
                    msat=request.msat,
                    invoice="lnbcrt20u1fake",
                    payment_hash="00" * 32,
                    state="open",
                    simulated=fake.simulated,
                )
            self._settle_when_due(fake.deposits[known])
            return wallet_pb2.CreateDepositResponse(deposit=fake.deposits[known])

        return answered(self.fake, context, handle)

    def _settle_when_due(self, deposit: wallet_pb2.Deposit) -> None:
        if deposit.state != "open":
            return
        if self.fake.polls_until_paid:
            self.fake.polls_until_paid -= 1
        else:
            deposit.state = "settled"
            self.fake.available_msat += deposit.msat

    def GetDeposit(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            self._settle_when_due(self.fake.deposits[request.id])
            return wallet_pb2.GetDepositResponse(deposit=self.fake.deposits[request.id])

        return answered(self.fake, context, handle)

    def CreateWithdrawal(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            fake = self.fake
            if request.msat > fake.available_msat:
                raise NotEnoughFunds("withdrawal.too_much", "Too much.", next_step="Ask for less.")
            name = f"withdrawal:{request.idempotency_key}"
            if name not in fake.withdrawals:
                fake.available_msat -= request.msat
                fake.withdrawals[name] = wallet_pb2.Withdrawal(
                    id=name,
                    msat=request.msat,
                    fee_limit_msat=2000,
                    address=request.address,
                    state="created",
                    simulated=fake.simulated,
                )
            return wallet_pb2.CreateWithdrawalResponse(withdrawal=fake.withdrawals[name])

        return answered(self.fake, context, handle)

    def GetWithdrawal(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            made = self.fake.withdrawals[request.id]
            made.state = self.fake.withdrawal_end
            if made.state == "failed":
                made.why.CopyFrom(why("payout.failed", "The payment failed.", reason="no route"))
            return wallet_pb2.GetWithdrawalResponse(withdrawal=made)

        return answered(self.fake, context, handle)

    def CancelWithdrawal(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            made = self.fake.withdrawals[request.id]
            if made.state != "created":
                raise Conflict("withdrawal.on_its_way", "It was sent.")
            made.state = "failed"
            self.fake.available_msat += made.msat
            return wallet_pb2.CancelWithdrawalResponse(withdrawal=made)

        return answered(self.fake, context, handle)

    def GetBalance(self, request: Any, context: Context) -> Any:
        asset = "simulated" if self.fake.simulated else "bitcoin"
        return answered(
            self.fake,
            context,
            lambda: wallet_pb2.GetBalanceResponse(
                available_msat=self.fake.available_msat, held_msat=self.fake.held_msat, asset=asset
            ),
        )

    def ListTransfers(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            before = request.before_sequence or 1 << 62
            found = [each for each in self.fake.transfers if each.sequence < before]
            return wallet_pb2.ListTransfersResponse(transfers=found[: min(request.limit, 2)])

        return answered(self.fake, context, handle)


class Artifacts(artifacts_pb2_grpc.ArtifactsServiceServicer):
    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    def BeginUpload(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            manifest = Manifest.parse(request.manifest)
            self.fake.manifests[manifest.id] = manifest
            have = self.fake.stored.setdefault(manifest.id, bytearray())
            durable = self._durable(manifest, have)
            return artifacts_pb2.BeginUploadResponse(
                artifact_id=manifest.id, durable_leaves=durable, complete=durable == manifest.leaf_count
            )

        return answered(self.fake, context, handle)

    def _durable(self, manifest: Manifest, have: bytearray) -> int:
        """Whole, correct leaves at the start of what was received; the tests' files are one leaf each."""
        at = number = 0
        for leaf in manifest.each_leaf():
            data = bytes(have[at : at + leaf.size_bytes])
            if len(data) < leaf.size_bytes or leaf_digest(data) != leaf.digest:
                break
            at, number = at + leaf.size_bytes, number + 1
        return number

    def UploadLeaves(self, request_iterator: Iterator[Any], context: Context) -> Any:
        def handle() -> Any:
            first = next(request_iterator)
            self.fake.uploads.append((first.artifact_id, first.first_leaf))
            have = self.fake.stored[first.artifact_id]
            manifest = self.fake.manifests[first.artifact_id]
            sizes = [leaf.size_bytes for leaf in manifest.each_leaf()]
            del have[sum(sizes[: first.first_leaf]) :]
            have.extend(first.data)
            for frame in request_iterator:
                have.extend(frame.data)
            durable = self._durable(manifest, have)
            return artifacts_pb2.UploadLeavesResponse(durable_leaves=durable, complete=durable == manifest.leaf_count)

        return answered(self.fake, context, handle)

    def GetManifest(self, request: Any, context: Context) -> Any:
        def handle() -> Any:
            manifest = self.fake.manifests.get(request.artifact_id)
            if manifest is None:
                raise NotFound("artifact.unknown", "There is no such artifact for you.")
            return artifacts_pb2.GetManifestResponse(manifest=manifest.to_bytes())

        return answered(self.fake, context, handle)

    def DownloadLeaves(self, request: Any, context: Context) -> Iterator[Any]:
        answered(self.fake, context, lambda: None)
        self.fake.downloads.append((request.artifact_id, request.first_leaf))
        sizes = [leaf.size_bytes for leaf in self.fake.manifests[request.artifact_id].each_leaf()]
        begin = sum(sizes[: request.first_leaf])
        end = begin + sum(sizes[request.first_leaf : request.first_leaf + request.leaf_count])
        data = bytes(self.fake.stored[request.artifact_id])
        for at in range(begin, end, 256 * 1024):
            yield artifacts_pb2.DownloadLeavesResponse(data=data[at : min(at + 256 * 1024, end)])


class Running:
    """A serving fake; `stop` and `start` on the same port are a restart."""

    def __init__(self, folder: Path) -> None:
        clock = SystemClock()
        authority = Authority.load_or_create(folder / "authority", ["127.0.0.1"])
        key = SigningKey.generate()
        self.fake = Fake(
            authority=authority,
            tokens=Tokens(key, authority.ca_sha256, clock),
            key=key,
            challenges=Challenges(clock),
        )
        self.start()

    def start(self) -> None:
        self.server = grpc.server(ThreadPoolExecutor(max_workers=8), options=(("grpc.so_reuseport", 0),))
        enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(Enrolment(self.fake), self.server)
        jobs_pb2_grpc.add_JobsServiceServicer_to_server(Jobs(self.fake), self.server)
        wallet_pb2_grpc.add_WalletServiceServicer_to_server(Wallet(self.fake), self.server)
        artifacts_pb2_grpc.add_ArtifactsServiceServicer_to_server(Artifacts(self.fake), self.server)
        place = self.fake.address or "127.0.0.1:0"
        port = self.server.add_secure_port(place, self.fake.authority.server_credentials())
        self.fake.address = f"127.0.0.1:{port}"
        self.server.start()

    def stop(self) -> None:
        self.server.stop(grace=None).wait()


def why(code: str, sentence: str, *, next_step: str = "", **evidence: str) -> types_pb2.Why:
    return types_pb2.Why(code=code, sentence=sentence, next_step=next_step, evidence=evidence)
