"""Models that the coordinator holds: "hub:ORG/NAME@REVISION", "offered:NAME"; the small stand-in a plan is made from.

Owns the reference, which of a repository's files may travel, and the facts folder: the coordinator writes config,
tokenizer and the headers of the weights; the requester unfolds it into a model folder whose weights are holes of the
right size, which `folder.inspect_model` and the tokenizer read as they read a real one. No network here: the
coordinator's `hub` fetches, `shardwork.client.hub` unfolds.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import Corrupt, InvalidInput
from .folder import COMPANIONS, INDEX, SINGLE

PREFIX = "hub:"
#: what the operator put into the store for everybody
OFFERED = "offered:"
#: sizes of the weight files, by name
SIZES = "weights.json"
HEADERS = "headers"
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,95}"
_REFERENCE = re.compile(rf"hub:({_PART})/({_PART})@([A-Za-z0-9](?:[A-Za-z0-9_/-]|\.(?!\.)){{0,99}})")
_OFFERED = re.compile(r"offered:([A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,62})")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?!\.)){0,199}\.safetensors")
_MOST_BYTES = 2**50


@dataclass(frozen=True, slots=True)
class HubModel:
    organisation: str
    name: str
    #: a branch, a tag, or a commit of 40 hex digits
    revision: str

    @classmethod
    def parse(cls, reference: str) -> HubModel:
        """Raises InvalidInput "hub.bad_reference"."""
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise InvalidInput(
                "hub.bad_reference",
                f"{reference[:120]!r} names no model on a hub.",
                next_step="Write hub:ORG/NAME@REVISION, with a branch, a tag or a commit, such as hub:acme/tiny@main.",
                key="base_model",
            )
        return cls(*found.groups())

    @property
    def repository(self) -> str:
        return f"{self.organisation}/{self.name}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which never names anything else."""
        return _COMMIT.fullmatch(self.revision) is not None

    def pinned(self, commit: str) -> HubModel:
        return HubModel(self.organisation, self.name, commit)

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}@{self.revision}"


def is_remote(reference: str | None) -> bool:
    """Whether a base model lies at the coordinator and is named, not sent."""
    return (reference or "").startswith((PREFIX, OFFERED))


def check_reference(reference: str) -> None:
    """Raises InvalidInput "hub.bad_reference" or "offered.bad_name" for a name that no remote model can have."""
    if reference.startswith(OFFERED):
        offered_name(reference)
    else:
        HubModel.parse(reference)


def offered_name(reference: str) -> str:
    """Raises InvalidInput "offered.bad_name"."""
    found = _OFFERED.fullmatch(reference)
    if found is None:
        raise InvalidInput(
            "offered.bad_name",
            f"{reference[:120]!r} names no offered model.",
            next_step="Write offered:NAME, with letters, digits, '-', '_' and single dots.",
            key="base_model",
        )
    return found[1]


def check_pinned(reference: str) -> HubModel:
    """Raises InvalidInput "hub.not_pinned" for a branch or a tag, which may name another model tomorrow."""
    model = HubModel.parse(reference)
    if not model.is_pinned:
        raise InvalidInput(
            "hub.not_pinned",
            f"{reference!r} names no commit.",
            next_step="Submit with `shardwork job submit`, which pins branches and tags.",
            key="base_model",
        )
    return model


def hub_name(base_id: str) -> tuple[str, str | None]:
    """(name, revision) as loaders know a model of a hub; any other base by its own words, without a revision."""
    if not base_id.startswith(PREFIX):
        return base_id, None
    model = HubModel.parse(base_id)
    return model.repository, model.revision


def weight_files(names: Mapping[str, object], index: Mapping[str, object] | None) -> list[str]:
    """The safetensors files of a repository that hold the whole model, sorted. `index`: its index file's weight_map.

    Raises InvalidInput "hub.no_weights", "hub.pickle" and "hub.bad_index".
    """
    if index is not None:
        wanted = sorted({str(name) for name in index.values()})
        for name in wanted:
            if not _WEIGHTS.fullmatch(name) or name not in names:
                raise InvalidInput(
                    "hub.bad_index",
                    f"The repository's index names {name[:80]!r}, which is no weight file of it.",
                    next_step="Choose another revision of the model.",
                )
        return wanted
    if SINGLE in names:
        return [SINGLE]
    pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl")))
    if pickles:
        raise InvalidInput(
            "hub.pickle",
            f"The repository has its weights only as a pickle ({pickles[0][:80]}), and a pickle can run code.",
            next_step="Choose a revision or a model with safetensors.",
        )
    raise InvalidInput(
        "hub.no_weights",
        f"The repository holds neither {SINGLE} nor {INDEX}.",
        next_step="Choose a model that transformers can load.",
    )


def facts_of(model: Path, into: Path) -> None:
    """The facts folder of a model folder that was inspected."""
    (into / HEADERS).mkdir(parents=True)
    sizes: dict[str, int] = {}
    for path in sorted(model.iterdir()):
        if path.name.endswith(".safetensors"):
            sizes[path.name] = path.stat().st_size
            with path.open("rb") as file:
                first = file.read(8)
                (into / HEADERS / path.name).write_bytes(first + file.read(int.from_bytes(first, "little")))
        else:
            shutil.copyfile(path, into / path.name)
    write_facts(into, sizes)


def write_facts(folder: Path, sizes: Mapping[str, int]) -> None:
    """Completes a facts folder: companions and `headers/<weights>` lie there already."""
    (folder / SIZES).write_text(json.dumps(dict(sorted(sizes.items())), separators=(",", ":")) + "\n")


def unfold(facts: Path, into: Path) -> Path:
    """A model folder whose weights are headers and holes; `into` appears whole. Raises Corrupt "hub.bad_facts"."""
    if into.exists():
        return into
    part = into.with_name(into.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in (*COMPANIONS, INDEX):
        if (facts / name).is_file():
            shutil.copyfile(facts / name, part / name)
    for name, size in _sizes(facts).items():
        with (part / name).open("wb") as file:
            file.write((facts / HEADERS / name).read_bytes())
            if file.tell() > size:
                raise Corrupt("hub.bad_facts", "A header is larger than its file.", file=name)
            file.truncate(size)
    part.rename(into)
    return into


def _sizes(facts: Path) -> dict[str, int]:
    try:
        sizes = json.loads((facts / SIZES).read_text())
        found = {str(name): int(size) for name, size in sizes.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise Corrupt("hub.bad_facts", "These are no facts of a model.", file=SIZES) from error
    for name, size in found.items():
        if not _WEIGHTS.fullmatch(name) or not 0 <= size <= _MOST_BYTES:
            raise Corrupt("hub.bad_facts", "These are no facts of a model.", file=SIZES)
    return found
