"""`job download`: what is said of outputs, and how each is loaded. The fetching is `shardwork.client`'s."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from shardwork.client.display import figures
from shardwork.client.display.loading import loading
from shardwork.client.results import Download

from .outcome import say
from .render import console
from .views import Json, output_json


def fetched_json(fetched: Download) -> Json:
    return {**output_json(fetched.output), "path": str(fetched.folder)}


def show_fetched(fetched: Sequence[Download]) -> None:
    """One line an output on stdout, and on stderr the lines that load it."""
    for each in fetched:
        console().print(Text(f"✓ {each.output.name}  {figures.size(each.output.bytes)}  {each.folder}"), soft_wrap=True)
        for line in loading(each.output.kind, str(each.folder), base=_base_of(each.folder)):
            say(f"    {line}")


def _base_of(folder: Path) -> str:
    """The base that the adapter names, as its own config says.

    A bare name would be looked up on a hub, where it is somebody else's model; so it is written as the path it was.
    """
    try:
        config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        name = str(config["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        return "the base model's folder"
    return name if Path(name).is_dir() else f"path/to/{Path(name).name}"
