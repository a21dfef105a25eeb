"""A data folder as a coordinator leaves it, with money, an artifact and keys; and databases of earlier versions."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from shardwork_coordinator.app import open_store
from shardwork_coordinator.artifacts import ArtifactStore
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import Move, external_account, user_account
from shardwork_coordinator.records import Artifact, ArtifactState
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.store.migrations import FOLDER
from shardwork_coordinator.upkeep import keys


def settings_of(folder: Path) -> Settings:
    return Settings(data_dir=folder)


def stored(folder: Path, text: str) -> str:
    """The id of a new artifact of this content in the data folder's store."""
    content = folder.parent / f"content-{abs(hash(text))}"
    content.mkdir()
    (content / "rows.txt").write_text(text * 1_000, encoding="utf-8")
    store = ArtifactStore.open(folder / "artifacts")
    manifest = store.put_folder(content)
    store.close()
    return str(manifest.id)


def row(artifact: str) -> Artifact:
    return Artifact(
        id=artifact, owner="r", purpose="input", state=ArtifactState.STORED, bytes=1, leaves=1, created_ms=0
    )


def deposited(tx: Transaction, number: int) -> None:
    move = Move(
        id=f"deposit/{number}",
        debit=external_account("simulated"),
        credit=user_account("r"),
        msat=1_000,
        reason="deposit",
        reference="test",
    )
    ledger.apply(tx, move, 0)


async def furnished(folder: Path) -> str:
    """Fills the folder; the id of its one artifact."""
    keys.create(folder / "keys")
    artifact = stored(folder, "a row of text ")
    store = open_store(settings_of(folder))
    store.start()

    def fill(tx: Transaction) -> None:
        tx.put(row(artifact))
        for number in range(3):
            deposited(tx, number)

    await store.write(fill)
    store.close()
    (folder / "simulated-payments.jsonl").write_text('{"a": 1}\n', encoding="utf-8")
    return artifact


async def balance(folder: Path) -> tuple[bool, int]:
    """Whether the books in this data folder add up, and how many transfers they have."""
    store = open_store(settings_of(folder))
    store.start()
    report = await store.read(ledger.check)
    store.close()
    return report.balanced, report.transfers


def older(database: Path, revision: str) -> None:
    """A database as the version wrote it whose newest revision this was."""
    engine = create_engine(f"sqlite:///{database}")
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
