"""Desk: what every page of the dashboard works with. Built once by `server`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from jinja2 import Environment

from shardwork.identity.role import Role

from ...artifacts import ArtifactStore
from ...artifacts.figures import StorageFigures
from ...engine import Engine
from ...people.items import Items
from ...policy.house import House
from ...rpc.auth import Caller
from ...settings import Settings
from ...store.base import T, Transaction
from ..live import Live
from .limiter import Limiter

#: who steers jobs for the dashboard's operators; the audit log says which person it was
OPERATOR = Caller(party_id="operator", public_key=b"", role=Role.OPERATOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    engine: Engine
    house: House
    live: Live
    templates: Environment
    storage: StorageFigures
    #: of the session's secret; other coordinators of this machine share the name space
    cookie: str
    #: cookies go over TLS only
    is_secure: bool
    #: lets the first user be made, as long as there is none
    setup_token: str
    #: the line by which a worker joins; empty where nobody serves one
    join: Callable[[], str] = str
    #: bytes of artifacts, and what people are asked; None: pages tell of rows only
    contents: ArtifactStore | None = None
    items: Items | None = None
    logins: Limiter = field(default_factory=Limiter)

    @property
    def settings(self) -> Settings:
        """What counts now, with the rules of the house."""
        return self.house.now

    async def commit(self, work: Callable[[Transaction], T]) -> T:
        """Whatever somebody does here is one transaction, and they all are committed here."""
        return await self.engine.store.write(work)
