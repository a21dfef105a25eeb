"""Offered models: base models that the operator put into the store for everybody, named "offered:NAME".

A model's bytes and its facts are artifacts of the house that stay as long as it is offered; whoever names it gets a row
of his own, as with models of a hub. A name never means another content: it is withdrawn, not replaced. Called by
`rpc.models`, `api` and the operator's `model` command.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from shardwork.artifact import Manifest
from shardwork.errors import Conflict, NotFound
from shardwork.models.folder import inspect_model
from shardwork.models.hub import OFFERED, facts_of, offered_name

from ..artifacts import ArtifactStore
from ..artifacts.retention import HOUSE
from ..records import Artifact, ArtifactState, OfferedModel
from ..store.base import Transaction

#: purpose of the facts of a model
FACTS = OFFERED + "facts:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A model and its facts in the artifact store, not offered yet."""

    model: Manifest
    facts: Manifest
    #: what a reader of the list wants to know
    told: dict[str, object]


def store_model(folder: Path, contents: ArtifactStore, scratch: Path) -> Stored:
    """Checks a folder and stores exactly the files that travel. Raises InvalidInput "model.*"."""
    facts = inspect_model(folder)
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="offered-") as place:
        model, described = Path(place) / "model", Path(place) / "facts"
        model.mkdir()
        for name in facts.files:
            shutil.copyfile(folder / name, model / name)
        facts_of(model, described)
        stored, small = contents.put_folder(model), contents.put_folder(described)
    told: dict[str, object] = {
        "params": facts.run_params,
        "model_type": facts.model_type,
        "context_length": facts.context_length,
        "chat_template": facts.has_chat_template,
    }
    return Stored(model=stored, facts=small, told=told)


def offer(tx: Transaction, name: str, stored: Stored, licence: str, now_ms: int) -> OfferedModel:
    """Raises InvalidInput "offered.bad_name", Conflict "offered.name_taken"."""
    offered_name(OFFERED + name)
    known = tx.get(OfferedModel, name)
    if known is not None and known.artifact_id != stored.model.id:
        raise Conflict(
            "offered.name_taken",
            f"The name {name!r} was given to another model, and jobs that used it say so.",
            next_step="Choose another name, with a version in it.",
            artifact=known.artifact_id,
        )
    row = OfferedModel(
        name=name,
        artifact_id=stored.model.id,
        bytes=stored.model.total_bytes,
        facts_json=json.dumps({**stored.told, "license": licence, "facts_artifact_id": stored.facts.id}),
        created_ms=known.created_ms if known else now_ms,
    )
    tx.put(row)
    for manifest, purpose in ((stored.model, OFFERED + name), (stored.facts, FACTS + name)):
        tx.put(_row(manifest, purpose, now_ms))
    return row


def withdraw(tx: Transaction, name: str) -> OfferedModel:
    """No new job may name it; those that run keep their copy. Raises NotFound "offered.not_found"."""
    row = tx.get(OfferedModel, name)
    if row is None:
        raise not_offered(name, every(tx))
    gone = replace(row, withdrawn=True)
    tx.put(gone)
    return gone


def every(tx: Transaction) -> list[OfferedModel]:
    """What is offered now, by name."""
    return tx.find(OfferedModel, withdrawn=False, order="name")


def find(tx: Transaction, reference: str) -> OfferedModel:
    """Raises InvalidInput "offered.bad_name", NotFound "offered.not_found"."""
    name = offered_name(reference)
    row = tx.get(OfferedModel, name)
    if row is None or row.withdrawn:
        raise not_offered(name, every(tx))
    return row


def granted(reference: str, party: str, now_ms: int) -> Callable[[Transaction], OfferedModel]:
    """Lets the party read the model and its facts from now on. Raises as `find`."""

    def work(tx: Transaction) -> OfferedModel:
        row = find(tx, reference)
        for artifact_id in (row.artifact_id, facts_id(row)):
            house, own = tx.get(Artifact, artifact_id, HOUSE), tx.get(Artifact, artifact_id, party)
            if house is None or house.state is not ArtifactState.STORED:
                raise not_offered(row.name, [])
            kept = own.purpose if own is not None and own.state is ArtifactState.STORED else house.purpose
            tx.put(replace(house, owner=party, purpose=kept, created_ms=now_ms))
        return row

    return work


def facts_id(row: OfferedModel) -> str:
    return str(json.loads(row.facts_json)["facts_artifact_id"])


def not_offered(name: str, known: list[OfferedModel]) -> NotFound:
    names = ", ".join(row.name for row in known[:20])
    return NotFound(
        "offered.not_found",
        f"This coordinator offers no model {name[:60]!r}.",
        next_step=f"It offers: {names}." if names else "It offers none; its operator can: `model add`.",
        key="base_model",
    )


def _row(manifest: Manifest, purpose: str, now_ms: int) -> Artifact:
    return Artifact(
        id=manifest.id,
        owner=HOUSE,
        purpose=purpose,
        state=ArtifactState.STORED,
        bytes=manifest.total_bytes,
        leaves=manifest.leaf_count,
        created_ms=now_ms,
    )
