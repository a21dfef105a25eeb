"""Models of a hub over gRPC: pin and describe one, then have it copied. Thin: `hub` does the work."""

from __future__ import annotations

from shardwork.identity.role import Role
from shardwork.v1 import models_pb2 as pb
from shardwork.v1 import models_pb2_grpc

from ..hub import HubMirror
from .auth import Context, Gate

OWNERS = (Role.REQUESTER, Role.OPERATOR)


class ModelsServicer(models_pb2_grpc.ModelsServiceServicer):
    def __init__(self, gate: Gate, mirror: HubMirror) -> None:
        self._gate, self._mirror = gate, mirror

    async def ResolveModel(self, request: pb.ResolveModelRequest, context: Context) -> pb.ResolveModelResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            facts = await self._mirror.resolve(request.reference, caller.party_id)
            return pb.ResolveModelResponse(
                pinned=str(facts.pinned), facts_artifact_id=facts.artifact_id, total_bytes=facts.total_bytes
            )

    async def MirrorModel(self, request: pb.MirrorModelRequest, context: Context) -> pb.MirrorModelResponse:
        async with self._gate.admit(context, *OWNERS) as caller:
            copy = await self._mirror.mirror(request.pinned, caller.party_id)
            return pb.MirrorModelResponse(
                complete=bool(copy.artifact_id),
                artifact_id=copy.artifact_id,
                done_bytes=copy.done_bytes,
                total_bytes=copy.total_bytes,
            )
