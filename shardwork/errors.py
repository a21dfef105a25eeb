"""Every error that crosses a component boundary: one tree, one status table.

    ShardworkError
    ├── InvalidInput        exit 3   INVALID_ARGUMENT     the caller's file, value or message is wrong
    ├── NotFound            exit 4   NOT_FOUND
    ├── NotAllowed          exit 5   PERMISSION_DENIED    known party, wrong role, owner or grant
    ├── NotAuthenticated    exit 5   UNAUTHENTICATED      no, expired or forged identity
    ├── NotEnoughFunds      exit 6   FAILED_PRECONDITION
    ├── Unreachable         exit 7   UNAVAILABLE
    ├── JobFailed           exit 8   ABORTED              a job that the caller waited for did not succeed
    ├── Conflict            exit 1   FAILED_PRECONDITION  the thing is not in a state that allows this
    ├── StaleLease          exit 1   ABORTED              an epoch that is no longer the live one
    ├── Corrupt             exit 1   DATA_LOSS            bytes that do not match their digest or signature
    ├── LimitExceeded       exit 1   RESOURCE_EXHAUSTED   a size, rate or quota
    └── Internal            exit 1   INTERNAL             a broken contract inside Shardwork

Each carries a `Why` (code, sentence, evidence, next step). The code names the exact case; the class decides the
exit status and the gRPC status. `shardwork.wire` turns an error into a gRPC status with a rich detail and back.
"""

from __future__ import annotations

from typing import ClassVar

from .why import Why


class ShardworkError(Exception):
    """Something went wrong."""

    exit_code: ClassVar[int] = 1
    #: name of the grpc.StatusCode member; text, so that this module needs no grpc
    grpc_status: ClassVar[str] = "UNKNOWN"

    def __init__(self, code: str, sentence: str, *, next_step: str = "", **evidence: object) -> None:
        self.why = Why(
            code=code,
            sentence=sentence,
            evidence={key: str(value) for key, value in evidence.items()},
            next_step=next_step,
        )
        super().__init__(self.why.render())

    @property
    def code(self) -> str:
        return self.why.code

    @classmethod
    def from_why(cls, why: Why) -> ShardworkError:
        error = cls(why.code, why.sentence, next_step=why.next_step)
        error.why = why
        error.args = (why.render(),)
        return error


class InvalidInput(ShardworkError):
    """The caller's file, value or message is wrong."""

    exit_code = 3
    grpc_status = "INVALID_ARGUMENT"


class NotFound(ShardworkError):
    """The named thing does not exist."""

    exit_code = 4
    grpc_status = "NOT_FOUND"


class NotAllowed(ShardworkError):
    """The caller is known but may not do this."""

    exit_code = 5
    grpc_status = "PERMISSION_DENIED"


class NotAuthenticated(ShardworkError):
    """The caller's identity is missing, expired or forged."""

    exit_code = 5
    grpc_status = "UNAUTHENTICATED"


class NotEnoughFunds(ShardworkError):
    """The account cannot cover this."""

    exit_code = 6
    grpc_status = "FAILED_PRECONDITION"


class Unreachable(ShardworkError):
    """The coordinator did not answer."""

    exit_code = 7
    grpc_status = "UNAVAILABLE"


class JobFailed(ShardworkError):
    """The job that the caller waited for did not succeed."""

    exit_code = 8
    grpc_status = "ABORTED"


class Conflict(ShardworkError):
    """The thing is not in a state that allows this."""

    grpc_status = "FAILED_PRECONDITION"


class StaleLease(ShardworkError):
    """The lease's epoch is no longer the live one."""

    grpc_status = "ABORTED"


class Corrupt(ShardworkError):
    """Bytes do not match their digest or signature."""

    grpc_status = "DATA_LOSS"


class LimitExceeded(ShardworkError):
    """A size, rate or quota was exceeded."""

    grpc_status = "RESOURCE_EXHAUSTED"


class Internal(ShardworkError):
    """A contract inside Shardwork was broken."""

    grpc_status = "INTERNAL"


#: class name -> class; the wire carries the name so that the caller raises the same class again
ERRORS: dict[str, type[ShardworkError]] = {
    cls.__name__: cls
    for cls in (
        InvalidInput,
        NotFound,
        NotAllowed,
        NotAuthenticated,
        NotEnoughFunds,
        Unreachable,
        JobFailed,
        Conflict,
        StaleLease,
        Corrupt,
        LimitExceeded,
        Internal,
    )
}
