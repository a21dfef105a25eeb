"""T17: every call of every service against every kind of caller that must not make it.

The calls are read from the descriptors, so a new call fails here until it says who may make it.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import grpc.aio
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from shardwork.clock import ManualClock, SystemClock
from shardwork.errors import Internal, ShardworkError, Unreachable
from shardwork.identity.keys import SigningKey, load_or_create
from shardwork.identity.role import Role
from shardwork.v1 import (
    api_keys_pb2,
    artifacts_pb2,
    enrolment_pb2,
    jobs_pb2,
    models_pb2,
    operator_pb2,
    storage_pb2,
    types_pb2,
    wallet_pb2,
    work_pb2,
)
from shardwork.wire import error_from_rpc
from shardwork_coordinator.records import Party as PartyRow
from shardwork_coordinator.rpc.auth import Tokens
from shardwork_coordinator.store.base import Transaction

from .market import Market

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODULES: tuple[ModuleType, ...] = (
    api_keys_pb2,
    artifacts_pb2,
    enrolment_pb2,
    jobs_pb2,
    models_pb2,
    operator_pb2,
    storage_pb2,
    wallet_pb2,
    work_pb2,
)
OWNERS, WORKER, OPERATOR = {Role.REQUESTER, Role.OPERATOR}, {Role.WORKER}, {Role.OPERATOR}
ANYBODY = set(Role)
#: None: the call comes before there is a token
WHO: dict[str, set[Role] | None] = {
    "ApiKeysService.CreateApiKey": {Role.REQUESTER},
    "ApiKeysService.ListApiKeys": {Role.REQUESTER},
    "ApiKeysService.RevokeApiKey": {Role.REQUESTER},
    "EnrolmentService.GetAuthority": None,
    "EnrolmentService.GetChallenge": None,
    "EnrolmentService.Enrol": None,
    "JobsService.QuoteJob": OWNERS,
    "JobsService.SubmitJob": OWNERS,
    "JobsService.ListJobs": OWNERS,
    "JobsService.GetJob": OWNERS,
    "JobsService.GetJobReport": OWNERS,
    "JobsService.ListJobEvents": OWNERS,
    "JobsService.WatchJob": OWNERS,
    "JobsService.PauseJob": OWNERS,
    "JobsService.ResumeJob": OWNERS,
    "JobsService.TopUpJob": OWNERS,
    "JobsService.PreviewJobControl": OWNERS,
    "JobsService.GetPeopleProgress": OWNERS,
    "JobsService.ClosePeople": OWNERS,
    "JobsService.CancelJob": OWNERS,
    "WorkService.Attach": WORKER,
    "WorkService.CommitResult": WORKER,
    "WorkService.SubmitResult": WORKER,
    "WorkService.ReleaseLease": WORKER,
    "WorkService.Measure": WORKER,
    "WorkService.GetRates": WORKER,
    "ArtifactsService.BeginUpload": ANYBODY,
    "ArtifactsService.UploadLeaves": ANYBODY,
    "ArtifactsService.GetManifest": ANYBODY,
    "ArtifactsService.DownloadLeaves": ANYBODY,
    "ModelsService.ResolveModel": OWNERS,
    "ModelsService.MirrorModel": OWNERS,
    "StorageService.ListArtifacts": OWNERS,
    "StorageService.DeleteArtifact": OWNERS,
    "StorageService.SignDownload": ANYBODY,
    "StorageService.SignUpload": ANYBODY,
    "StorageService.CompleteDirectUpload": ANYBODY,
    "WalletService.CreateDeposit": OWNERS,
    "WalletService.GetDeposit": OWNERS,
    "WalletService.GetBalance": ANYBODY,
    "WalletService.ListTransfers": ANYBODY,
    "WalletService.CreateWithdrawal": OWNERS,
    "WalletService.GetWithdrawal": OWNERS,
    "WalletService.CancelWithdrawal": OWNERS,
    "OperatorService.GetOverview": OPERATOR,
    "OperatorService.ListWorkers": OPERATOR,
    "OperatorService.SetWorkerReference": OPERATOR,
    "OperatorService.CheckLedger": OPERATOR,
}


def methods() -> dict[str, MethodDescriptor]:
    return {
        f"{service.name}.{method.name}": method
        for module in MODULES
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


@dataclass(frozen=True, slots=True)
class Outcome:
    status: grpc.StatusCode
    error: ShardworkError | None


async def call(channel: grpc.aio.Channel, method: MethodDescriptor, token: str | None, request: Any = None) -> Outcome:
    """Calls with a request (an empty one by default) and reads the answers to the end.

    Again when gRPC lost the answer, which happens to a stream that is refused while its first message is on the way.
    """
    for _ in range(4):
        outcome = await call_once(channel, method, token, request)
        if not isinstance(outcome.error, Unreachable) or outcome.status is not grpc.StatusCode.INTERNAL:
            return outcome
    return await call_once(channel, method, token, request)


async def call_once(channel: grpc.aio.Channel, method: MethodDescriptor, token: str | None, request: Any) -> Outcome:
    metadata = () if token is None else (("authorization", token),)
    made_from: Any = GetMessageClass(method.input_type)
    sent = request or made_from()
    path = f"/{method.containing_service.full_name}/{method.name}"
    coding: dict[str, Any] = {
        "request_serializer": made_from.SerializeToString,
        "response_deserializer": GetMessageClass(method.output_type).FromString,
    }

    async def stream() -> AsyncGenerator[Any, None]:
        yield sent

    shapes: dict[tuple[bool, bool], Any] = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    made = shapes[method.client_streaming, method.server_streaming](path, **coding)(
        stream() if method.client_streaming else sent, metadata=metadata, timeout=10
    )
    try:
        if method.server_streaming:
            async for _ in made:
                pass
        else:
            await made
    except grpc.aio.AioRpcError as error:
        return Outcome(error.code(), error_from_rpc(error))
    return Outcome(grpc.StatusCode.OK, None)


def real_tokens(place: Market, clock: ManualClock | SystemClock | None = None, audience: str = "") -> Tokens:
    key = load_or_create(place.folder / "keys" / "coordinator.key")
    return Tokens(key, audience or place.join.ca_sha256, clock or SystemClock())


async def bad_tokens(place: Market) -> dict[str, tuple[str | None, grpc.StatusCode, str]]:
    """Name -> (what is sent, status and code that must come back)."""
    known = await place.party(Role.WORKER)
    revoked = await place.party(Role.WORKER)

    def revoke(tx: Transaction) -> None:
        row = tx.get(PartyRow, revoked.id)
        assert row is not None
        tx.put(replace(row, revoked=True))

    await place.serving.engine.store.write(revoke)
    issue, key = real_tokens(place).issue, known.key.public_key
    good = issue(key, Role.WORKER).text
    late = real_tokens(place, ManualClock(1_000_000)).issue(key, Role.WORKER).text
    elsewhere = real_tokens(place, audience="ab" * 32).issue(key, Role.WORKER).text
    forged = Tokens(SigningKey.generate(), place.join.ca_sha256, SystemClock()).issue(key, Role.WORKER).text
    envelope = types_pb2.Envelope.FromString(base64.urlsafe_b64decode(good))
    envelope.payload = envelope.payload.replace(b"worker", b"operator")
    bent = base64.urlsafe_b64encode(envelope.SerializeToString()).decode()
    missing, denied = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
    return {
        "none": (None, missing, "auth.no_token"),
        "no scheme": (good, missing, "auth.no_token"),
        "garbage": ("Bearer garbage", missing, "auth.bad_token"),
        "long garbage": ("Bearer " + "A" * 4000, missing, "auth.bad_token"),
        "expired": (f"Bearer {late}", missing, "auth.expired_token"),
        "another coordinator's": (f"Bearer {elsewhere}", missing, "auth.bad_token"),
        "forged": (f"Bearer {forged}", missing, "auth.bad_token"),
        "bent": (f"Bearer {bent}", missing, "auth.bad_token"),
        "unknown key": (
            f"Bearer {issue(SigningKey.generate().public_key, Role.WORKER).text}",
            missing,
            "auth.unknown_party",
        ),
        "revoked": (f"Bearer {issue(revoked.key.public_key, Role.WORKER).text}", denied, "auth.revoked"),
        "operator by another key": (f"Bearer {issue(key, Role.OPERATOR).text}", denied, "auth.not_operator"),
    }


async def test_every_call_says_who_may_make_it() -> None:
    assert set(methods()) == set(WHO)


async def test_no_gated_call_takes_a_bad_token(place: Market) -> None:
    session = (await place.party(Role.WORKER)).session
    tokens = await bad_tokens(place)
    found = {
        (name, case): await call(session.channel, method, token)
        for name, method in methods().items()
        if WHO[name] is not None
        for case, (token, _, _) in tokens.items()
    }
    wrong = {
        place_: outcome
        for place_, outcome in found.items()
        if outcome.error is None or (outcome.status, outcome.error.code) != tokens[place_[1]][1:]
    }
    assert len(found) == sum(who is not None for who in WHO.values()) * len(tokens)
    assert wrong == {}


async def test_no_call_takes_a_wrong_role_and_none_is_internal_for_a_right_one(place: Market) -> None:
    parties = {
        Role.REQUESTER: await place.party(Role.REQUESTER),
        Role.WORKER: await place.party(Role.WORKER),
        Role.OPERATOR: await place.operator(),
    }
    wrong: list[tuple[str, Role, Outcome]] = []
    for name, method in methods().items():
        for role, party in parties.items():
            ((_, token),) = await party.session.metadata()
            outcome = await call(party.session.channel, method, token)
            allowed = WHO[name]
            if allowed is None or role in allowed:
                fine = not isinstance(outcome.error, Internal) and outcome.status is not grpc.StatusCode.UNKNOWN
            else:
                fine = outcome.error is not None and outcome.error.code == "auth.wrong_role"
            if not fine:
                wrong.append((name, role, outcome))
    assert wrong == []


async def test_what_belongs_to_another_owner_is_as_unknown_as_what_is_not(place: Market) -> None:
    owner, other = await place.party(Role.REQUESTER, sats=100), await place.party(Role.REQUESTER)
    job = await owner.submit()
    artifact = await owner.upload({"secret.txt": "mine"})
    deposit = await owner.session.call(
        owner.session.wallet.CreateDeposit, wallet_pb2.CreateDepositRequest(msat=5_000, idempotency_key="mine")
    )
    taken = await owner.session.call(
        owner.session.wallet.CreateWithdrawal,
        wallet_pb2.CreateWithdrawalRequest(msat=5_000, address="hang@simulated", idempotency_key="mine"),
    )
    ((_, token),) = await other.session.metadata()
    requests: dict[str, Any] = {
        **{
            f"JobsService.{name}": getattr(jobs_pb2, f"{name}Request")(job_id=job)
            for name in ("GetJob", "GetJobReport", "ListJobEvents", "WatchJob", "PauseJob", "ResumeJob", "CancelJob")
        },
        "ArtifactsService.GetManifest": artifacts_pb2.GetManifestRequest(artifact_id=artifact),
        "ArtifactsService.DownloadLeaves": artifacts_pb2.DownloadLeavesRequest(artifact_id=artifact, leaf_count=1),
        "WalletService.GetDeposit": wallet_pb2.GetDepositRequest(id=deposit.deposit.id),
        "WalletService.GetWithdrawal": wallet_pb2.GetWithdrawalRequest(id=taken.withdrawal.id),
        "WalletService.CancelWithdrawal": wallet_pb2.CancelWithdrawalRequest(id=taken.withdrawal.id),
    }
    before = [row for row in await place.state() if getattr(row, "job_id", getattr(row, "id", "")) == job]
    logs: list[tuple[str, Any]] = [
        ("JobsService.ListJobEvents", jobs_pb2.ListJobEventsRequest(job_id=job, details=True, before_sequence=2**63)),
        ("JobsService.WatchJob", jobs_pb2.WatchJobRequest(job_id=job, details=True)),
    ]
    for name, request in [*requests.items(), *logs]:
        outcome = await call(other.session.channel, methods()[name], token, request)
        assert outcome.status is grpc.StatusCode.NOT_FOUND, (name, outcome)
    listed = await other.session.call(other.session.jobs.ListJobs, jobs_pb2.ListJobsRequest())
    assert list(listed.jobs) == []
    assert len(before) > 0
    mine = await owner.session.call(owner.session.jobs.GetJob, jobs_pb2.GetJobRequest(job_id=job))
    assert mine.job.state == "running"
