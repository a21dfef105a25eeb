"""Identity: coordinators on one database must have the same keys and the same artifact store, or they are refused.

The first one writes fingerprints into the database; every other compares its own. No secret leaves the keys' folder:
the operator hands it over himself. Called by `app` before anything serves.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import from_url

from shardwork.errors import Conflict, InvalidInput

from ..artifacts.reach import reaching
from ..records import Cluster
from ..store.base import Store, Transaction

#: files of the keys' folder
KEY_FILES = ("authority.pem", "coordinator.key", "operator.key")
STORAGE_MARK = "storage-id"
THE_ONE = "cluster"


def check_keys_folder(folder: Path) -> None:
    """A folder that somebody named must hold all keys: a mistyped one must not get new ones. Raises InvalidInput
    "keys.incomplete"."""
    missing = [name for name in KEY_FILES if not (folder / name).is_file()]
    if missing:
        raise InvalidInput(
            "keys.incomplete",
            "The folder of keys does not hold all of a coordinator's keys.",
            next_step="Copy the folder `keys` of the first coordinator, with its modes: cp -a, rsync -a or scp -p.",
            folder=folder,
            missing=", ".join(missing),
        )


def storage_id(location: str) -> str:
    """The name that the artifact store carries, written into it when it has none. A folder or an object-store URL."""
    return _folder_id(Path(location)) if "://" not in location else _object_id(location)


def _folder_id(root: Path) -> str:
    path = root / STORAGE_MARK
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with path.open("x") as file:
            file.write(secrets.token_hex(16))
    except FileExistsError:
        pass
    return path.read_text().strip()


@reaching
def _object_id(url: str) -> str:
    store = from_url(url + "/" if url.endswith("://") else url)
    try:
        obstore.put(store, STORAGE_MARK, secrets.token_hex(16).encode(), mode="create")
    except AlreadyExistsError:
        pass
    return bytes(obstore.get(store, STORAGE_MARK).bytes()).decode().strip()


async def check_identity(store: Store, own: Cluster) -> None:
    """Compares with what the first coordinator wrote, or writes it. Raises Conflict "cluster.other_keys" or
    "cluster.other_storage"."""

    def join(tx: Transaction) -> Cluster:
        return tx.get(Cluster, own.id) or tx.insert(own)

    known = await store.read(lambda tx: tx.get(Cluster, own.id))
    if known is None:
        known = await store.write(join)
    for name in ("ca_sha256", "coordinator_key", "operator_key"):
        ours, theirs = getattr(own, name), getattr(known, name)
        if ours != theirs:
            raise Conflict(
                "cluster.other_keys",
                "The coordinators on this database have other keys: no worker could go from one to the other.",
                next_step="Copy the folder `keys` of the first coordinator and name it with --keys-dir. Or give this "
                "coordinator a database of its own.",
                what=name,
                ours=ours,
                database=theirs,
            )
    if own.storage_id != known.storage_id:
        raise Conflict(
            "cluster.other_storage",
            "The coordinators on this database keep their artifacts elsewhere: this one could not read them.",
            next_step="Give --storage the folder, shared by all machines, or the object-store URL of the first "
            "coordinator.",
            ours=own.storage_id,
            database=known.storage_id,
        )
