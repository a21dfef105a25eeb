"""What a coordinator has to offer: base models, and workers in numbers, without anybody's name. Routes of `native`."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from starlette.responses import JSONResponse, Response

from ..hub import offered
from ..machine.states import LIVE
from ..records import OfferedModel, Replica, ReplicaState
from ..store.base import Transaction
from ..web.kept import Kept
from .routes import Call

#: sums over everybody's work are counted this often
KEEP_S = 5.0


async def models(call: Call) -> Response:
    rows = await call.desk.engine.store.read(offered.every)
    return JSONResponse({"models": [model_json(row) for row in rows]})


async def model(call: Call) -> Response:
    """Raises NotFound "offered.not_found", InvalidInput "offered.bad_name"."""
    work = offered.granted(f"offered:{call.named['name']}", call.caller.party_id, call.desk.now_ms)
    return JSONResponse(model_json(await call.desk.commit(work)))


async def workers(call: Call) -> Response:
    if call.desk.totals is None:
        call.desk.totals = Kept(lambda: _workers(call), KEEP_S)
    return JSONResponse(await call.desk.totals.get())


def model_json(row: OfferedModel) -> dict[str, Any]:
    facts = json.loads(row.facts_json)
    told = {key: facts.get(key) for key in ("params", "model_type", "context_length", "chat_template", "license")}
    return {
        "name": row.name,
        "base_model": f"offered:{row.name}",
        "artifact_id": row.artifact_id,
        "bytes": row.bytes,
        **told,
        "created_unix_ms": row.created_ms,
    }


async def _workers(call: Call) -> dict[str, Any]:
    links = call.desk.engine.links.everywhere()

    def look(tx: Transaction) -> tuple[int, set[str]]:
        waiting = tx.count(Replica, "state", state=[str(ReplicaState.READY)])
        return sum(waiting.values()), {one.worker_id for one in tx.find(Replica, state=[str(one) for one in LIVE])}

    waiting, busy = await call.desk.engine.store.read(look)
    states = Counter("busy" if link.worker_id in busy else "ready" if link.accepting else "paused" for link in links)
    devices = Counter(link.capability.execution_class or "unknown" for link in links)
    return {"attached": len(links), "states": dict(states), "devices": dict(devices), "waiting_shards": waiting}
