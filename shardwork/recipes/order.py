"""Order: what every order of a shard shares: frozen, canonical, within bounds. Pure data; `orders`, `objectives` and
`alignment.orders` build on it."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

#: bounds that hold whatever a job asks for: outside of them a worker would crash, hang, or hand in work it did not do
Count = Annotated[int, Field(ge=0, lt=2**53)]
Steps = Annotated[int, Field(ge=1, le=10**6)]
Rows = Annotated[int, Field(ge=1, le=4096)]
Length = Annotated[int, Field(ge=2, le=2**20)]
#: each is a stack and part of the arithmetic; tens of thousands end the process
Threads = Annotated[int, Field(ge=1, le=256)]
Size = Annotated[int, Field(ge=1, le=4096)]
Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]
#: of a source of data: how often a pass reads its rows
Weight = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, lt=1)]


def added(default: Any) -> Any:
    """A field that the first release did not know. At its default it is left out of the JSON, so that a worker of the
    version before reads every order that it can carry out, and refuses the others."""
    return Field(default=default, exclude_if=lambda value: bool(value == default))


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def canonical_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
