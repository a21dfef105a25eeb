"""Writes docs/reference/ from the code, so that the reference can't say anything else than the product does.

    python docs/generate.py                    write every page
    python docs/generate.py --check [FOLDER]   exit 1 and name the pages that differ from what the code says now

`commands` walks the three programs' commands, `models` reads pydantic models, `protos` the contract, `python` the
public API, `reasons` the source's raise sites.
`make docs` runs this; a house test runs the check. Needs the coordinator's extra, not torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import commands
import json_shapes
import logevents
import models
import protos
import python
import reasons

REFERENCE = Path(__file__).parent / "reference"
HEADER = "<!-- Generated from the code by `make docs`; edit the code instead. -->\n\n"

PAGES: dict[str, Callable[[], str]] = {
    "shardwork.md": commands.requester,
    "shardwork-worker.md": commands.provider,
    "shardwork-coordinator.md": commands.operator,
    "coordinator-settings.md": models.coordinator_settings,
    "worker-settings.md": models.worker_settings,
    "client-settings.md": models.client_settings,
    "job-file.md": models.job_file,
    "recipes.md": models.recipes,
    "metrics.md": models.metrics,
    "log-events.md": logevents.events,
    "python.md": python.api,
    "rpc.md": protos.services,
    "codes.md": reasons.codes,
    "schemas.md": json_shapes.index,
}


def pages() -> dict[str, str]:
    """File name -> text."""
    made = {name: HEADER + make() for name, make in PAGES.items()}
    lines = [f"- [{text.split('# ', 1)[1].splitlines()[0]}]({name})" for name, text in made.items()]
    made |= {f"schemas/{json_shapes.file_name(each)}": json_shapes.schema(each) for each in json_shapes.SHAPES}
    made["README.md"] = HEADER + "# Reference\n\n" + "\n".join(lines) + "\n"
    return made


def differing(folder: Path) -> list[str]:
    """Pages that are missing, differ, or that nothing makes any more."""
    made = pages()
    kept = {name: (folder / name).read_text(encoding="utf-8") for name in written(folder)}
    return sorted(name for name in made.keys() | kept.keys() if made.get(name) != kept.get(name))


def written(folder: Path) -> set[str]:
    """Every page and schema that lies there."""
    return {path.relative_to(folder).as_posix() for kind in ("*.md", "schemas/*.json") for path in folder.glob(kind)}


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = pages()
    for name in written(folder) - made.keys():
        (folder / name).unlink()
    (folder / "schemas").mkdir(exist_ok=True)
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    if not arguments:
        write(REFERENCE)
        return 0
    if arguments[0] != "--check" or len(arguments) > 2:
        print(__doc__, file=sys.stderr)
        return 2
    stale = differing(Path(arguments[1]) if len(arguments) == 2 else REFERENCE)
    for name in stale:
        print(f"differs from the code: {name}", file=sys.stderr)
    if stale:
        print("run `make docs` and commit the result", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
