"""Role: what a party may act as. One key may hold several; a token names exactly one.

Pure. The wire form is `shardwork.v1.Role`. Used by `shardwork.session` and by the coordinator's gate.
"""

from __future__ import annotations

from enum import StrEnum

from ..errors import InvalidInput
from ..v1 import enrolment_pb2


class Role(StrEnum):
    REQUESTER = "requester"
    WORKER = "worker"
    OPERATOR = "operator"
    #: judges for pay, over the web, where each call is signed: no token names it
    ANNOTATOR = "annotator"


_WIRE: dict[Role, enrolment_pb2.Role.ValueType] = {
    Role.REQUESTER: enrolment_pb2.ROLE_REQUESTER,
    Role.WORKER: enrolment_pb2.ROLE_WORKER,
    Role.OPERATOR: enrolment_pb2.ROLE_OPERATOR,
}


def role_to_proto(role: Role) -> enrolment_pb2.Role.ValueType:
    return _WIRE[role]


def role_from_proto(value: int) -> Role:
    """Raises InvalidInput "enrolment.unknown_role"; proto3 lets any number through."""
    for role, wire in _WIRE.items():
        if wire == value:
            return role
    valid = ", ".join(_WIRE)
    raise InvalidInput("enrolment.unknown_role", f"The role must be one of {valid}.", role=value)
