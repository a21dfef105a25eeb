"""Rows of parties and people: keys, who signs in, what operators did and decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Record
from .states import Standing, WebRole


@dataclass(frozen=True, slots=True, kw_only=True)
class Party(Record):
    KEY: ClassVar[tuple[str, ...]] = ("id",)
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = (("public_key",),)
    id: str
    public_key: bytes
    #: comma-separated roles this key enrolled for: "requester,worker"
    roles: str
    name: str
    payout_address: str = ""
    reference: bool = False
    revoked: bool = False
    software_version: str = ""
    created_ms: int
    last_seen_ms: int
    standing: Standing = Standing.NORMAL
    #: empty, or why the operator gave it another standing
    standing_why_json: str = ""
    #: its owner wants it on the public page
    listed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WebUser(Record):
    """Somebody who may sign in to the dashboard."""

    KEY: ClassVar[tuple[str, ...]] = ("name",)
    name: str
    role: WebRole
    #: argon2id, with its parameters and salt
    password_hash: str
    #: shared secret of one-time codes, base32; empty: none are asked for
    totp_secret: str = ""
    #: the last time step whose code was used: none is taken twice
    totp_step: int = 0
    created_ms: int
    disabled: bool = False
    #: wrong passwords since the last right one, and until when none is tried
    failures: int = 0
    locked_until_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSession(Record):
    """Somebody who signed in. The browser holds the secret, this row its digest."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    #: SHA-256 of the secret
    id: str
    user: str
    #: what every form of this session carries
    csrf: str
    created_ms: int
    seen_ms: int
    #: 0 once it was ended
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey(Record):
    """A secret by which a requester's program calls the HTTP API in its name."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = (("secret_sha256",),)
    id: str
    owner: str
    name: str
    secret_sha256: str
    created_ms: int
    last_used_ms: int = 0
    #: 0: never
    expires_ms: int = 0
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiFile(Record):
    """A file handed in through the HTTP API: a name for a stored artifact of its owner."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    owner: str
    artifact_id: str
    filename: str
    purpose: str
    bytes: int
    created_ms: int
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry(Record):
    """Something that a person did as operator; append-only."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    #: sorts by time
    id: str
    at_ms: int
    #: a user of the dashboard, or "command line"
    actor: str
    #: "worker.quarantine", "job.cancel", ...
    action: str
    subject: str
    sentence: str
    #: what the actor gave as reason
    reason: str = ""
    evidence_json: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange(Record):
    """A new value of one rule of the house; the newest of a name counts; append-only."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    #: sorts by time
    id: str
    at_ms: int
    actor: str
    name: str
    old_json: str
    new_json: str
    reason: str = ""
