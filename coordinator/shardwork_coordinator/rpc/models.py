"""Models of a hub and offered ones over gRPC: pin and describe one, have it copied. Thin: `hub` does the work."""

from __future__ import annotations

from shardwork.clock import Clock
from shardwork.identity.role import Role
from shardwork.models.hub import OFFERED
from shardwork.v1 import models_pb2 as pb
from shardwork.v1 import models_pb2_grpc

from ..hub import HubMirror, offered
from ..store.base import Store
from .auth import Context, Gate

OWNERS = (Role.REQUESTER, Role.OPERATOR)


class ModelsServicer(models_pb2_grpc.ModelsServiceServicer):
    def __init__(self, gate: Gate, mirror: HubMirror, store: Store, clock: Clock) -> None:
        self._gate, self._mirror, self._store, self._clock = gate, mirror, store, clock

    async def ResolveModel(self, request: pb.ResolveModelRequest, context: Context) -> pb.ResolveModelResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            if request.reference.startswith(OFFERED):
                row = await self._store.write(offered.granted(request.reference, caller.party_id, self._clock.now_ms()))
                return pb.ResolveModelResponse(
                    pinned=request.reference, facts_artifact_id=offered.facts_id(row), total_bytes=row.bytes
                )
            facts = await self._mirror.resolve(request.reference, caller.party_id)
            return pb.ResolveModelResponse(
                pinned=str(facts.pinned), facts_artifact_id=facts.artifact_id, total_bytes=facts.total_bytes
            )

    async def MirrorModel(self, request: pb.MirrorModelRequest, context: Context) -> pb.MirrorModelResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            if request.pinned.startswith(OFFERED):
                row = await self._store.write(offered.granted(request.pinned, caller.party_id, self._clock.now_ms()))
                return pb.MirrorModelResponse(
                    complete=True, artifact_id=row.artifact_id, done_bytes=row.bytes, total_bytes=row.bytes
                )
            copy = await self._mirror.mirror(request.pinned, caller.party_id)
            return pb.MirrorModelResponse(
                complete=bool(copy.artifact_id),
                artifact_id=copy.artifact_id,
                done_bytes=copy.done_bytes,
                total_bytes=copy.total_bytes,
            )
