"""The wire's edges: strict parsing of signed payloads, and errors as gRPC statuses and back.

An error travels as its gRPC status code, its class name in the trailing metadata `shardwork-error`, and its Why packed
in `grpc-status-details-bin` (google.rpc.Status), so the caller raises the same class with the same code again. Used by
every gRPC handler (through the coordinator's gate) and every caller (through `shardwork.session`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from .errors import (
    ERRORS,
    Conflict,
    Corrupt,
    Internal,
    InvalidInput,
    LimitExceeded,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    ShardworkError,
    Unreachable,
)
from .v1 import types_pb2
from .why import Why

M = TypeVar("M", bound=Message)

ERROR_CLASS_KEY = "shardwork-error"
DETAILS_KEY = "grpc-status-details-bin"
#: gRPC refuses trailers above 8 KiB and the whole error with them, so a Why is clipped well below (base64 adds a third)
MAX_WHY_BYTES = 3072
MAX_MESSAGE_BYTES = 240

#: statuses that gRPC or a proxy answers with, without a Why of ours
_BARE_STATUSES: dict[grpc.StatusCode, type[ShardworkError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowed,
    grpc.StatusCode.UNAUTHENTICATED: NotAuthenticated,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.DATA_LOSS: Corrupt,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitExceeded,
}


def parse_strict(cls: type[M], payload: bytes) -> M:
    """Parses and refuses unknown fields at any depth: nobody may sign what we would not read.

    Raises InvalidInput "wire.malformed" or "wire.unknown_field".
    """
    try:
        message = cls.FromString(payload)
    except DecodeError:
        name = cls.DESCRIPTOR.full_name
        raise InvalidInput("wire.malformed", f"The bytes are not a {name}.", bytes=len(payload)) from None
    refuse_unknown_fields(message)
    return message


def refuse_unknown_fields(message: Message) -> None:
    """Raises InvalidInput "wire.unknown_field" naming the message and the field's number."""
    for part in _parts(message):
        unknown = UnknownFieldSet(part)
        if len(unknown):
            raise InvalidInput(
                "wire.unknown_field",
                "The message has a field that this version does not know.",
                next_step="Upgrade the older side.",
                message=part.DESCRIPTOR.full_name,
                field=unknown[0].field_number,
            )


def why_to_proto(why: Why) -> types_pb2.Why:
    return types_pb2.Why(code=why.code, sentence=why.sentence, evidence=dict(why.evidence), next_step=why.next_step)


def why_from_proto(why: types_pb2.Why) -> Why:
    evidence = {key: why.evidence[key] for key in sorted(why.evidence)}
    return Why(code=why.code, sentence=why.sentence, evidence=evidence, next_step=why.next_step)


def status_code(error: ShardworkError) -> grpc.StatusCode:
    return grpc.StatusCode[error.grpc_status]


async def abort_with(context: grpc.aio.ServicerContext[Any, Any], error: ShardworkError) -> NoReturn:
    """Ends the call with the error's status and its whole Why. Always raises gRPC's own abort."""
    code = status_code(error)
    text = _clip(error.why.sentence, MAX_MESSAGE_BYTES)
    status = Status(code=code.value[0], message=text)
    status.details.add().Pack(_clipped(error.why))
    trailers = ((ERROR_CLASS_KEY, type(error).__name__), (DETAILS_KEY, status.SerializeToString()))
    await context.abort(code, text, trailers)


def error_from_rpc(error: grpc.aio.AioRpcError, address: str = "") -> ShardworkError:
    """The error the other side raised; `address` is named when nothing answered at all."""
    why = _carried_why(error)
    if why is not None:
        return _carried_class(error).from_why(why)
    return _bare(error, address)


def is_lost_answer(error: grpc.aio.AioRpcError) -> bool:
    """True when the far side ended the stream while we were still sending: gRPC then knows no status and says this."""
    return error.code() is grpc.StatusCode.INTERNAL and "Internal error from Core" in (error.details() or "")


def unreachable(address: str, reason: str) -> Unreachable:
    """What every failed connection is told as."""
    return Unreachable(
        "coordinator.unreachable",
        f"The coordinator at {address} cannot be reached.",
        next_step="Check that it runs and that no firewall is in between, then try again.",
        address=address,
        reason=reason[:300],
    )


def _bare(error: grpc.aio.AioRpcError, address: str) -> ShardworkError:
    code, reason = error.code(), error.details() or ""
    place = address or "the given address"
    if "CERTIFICATE_VERIFY_FAILED" in reason or "Hostname Verification Check failed" in reason:
        return NotAuthenticated(
            "authority.untrusted_certificate",
            f"What answers at {place} is not the coordinator that the join line names.",
            next_step="Look at this machine's date and time first: a clock that is days off looks the same. If it is "
            "right, ask the operator for a fresh join line; send nothing until it matches.",
            address=place,
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unreachable(
            "coordinator.timeout",
            f"The coordinator at {place} did not answer in time.",
            next_step="Try again; if it repeats, look at the coordinator's load.",
            address=place,
        )
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or is_lost_answer(error):
        return unreachable(place, reason)
    name = code.name.lower()
    if code is grpc.StatusCode.UNIMPLEMENTED:
        next_step = "Upgrade the older side."
        return Conflict("rpc.unimplemented", "The coordinator does not offer this call.", next_step=next_step)
    cls = _BARE_STATUSES.get(code, Internal)
    return cls(f"rpc.{name}", f"The call failed with {name.replace('_', ' ')}.", address=place, reason=reason[:300])


def _carried_why(error: grpc.aio.AioRpcError) -> Why | None:
    details = _trailer(error, DETAILS_KEY)
    if not isinstance(details, bytes):
        return None
    carried = types_pb2.Why()
    try:
        for detail in Status.FromString(details).details:
            if detail.Is(types_pb2.Why.DESCRIPTOR) and detail.Unpack(carried):
                return why_from_proto(carried)
    except DecodeError:
        pass
    return None


def _carried_class(error: grpc.aio.AioRpcError) -> type[ShardworkError]:
    name = _trailer(error, ERROR_CLASS_KEY)
    known = ERRORS.get(name) if isinstance(name, str) else None
    return known or _BARE_STATUSES.get(error.code(), Internal)


def _trailer(error: grpc.aio.AioRpcError, wanted: str) -> str | bytes | None:
    for key, value in error.trailing_metadata() or ():
        if key == wanted:
            return value
    return None


def _clipped(why: Why) -> types_pb2.Why:
    """The Why, with its largest texts shortened until it fits into trailers."""
    whole = why_to_proto(why)
    for limit in (1024, 512, 256, 128, 64):
        if whole.ByteSize() <= MAX_WHY_BYTES:
            return whole
        evidence = {_clip(key, 64): _clip(value, limit) for key, value in list(why.evidence.items())[:16]}
        whole = types_pb2.Why(
            code=_clip(why.code, 128),
            sentence=_clip(why.sentence, 4 * limit),
            evidence=evidence,
            next_step=_clip(why.next_step, 2 * limit),
        )
    return whole


def _clip(text: str, limit_bytes: int) -> str:
    encoded = text.encode()
    if len(encoded) <= limit_bytes:
        return text
    return encoded[: limit_bytes - 3].decode(errors="ignore") + "…"


def _parts(message: Message) -> Iterator[Message]:
    """The message and every message inside it."""
    yield message
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is None:
            continue
        if not field.is_repeated:
            yield from _parts(value)
        elif not kind.GetOptions().map_entry:
            for item in value:
                yield from _parts(item)
        elif kind.fields_by_name["value"].message_type is not None:
            for item in value.values():
                yield from _parts(item)
