"""Where deploy/ lies, and what its files may name: settings by their variables, ports and paths by the code."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from shardwork_coordinator.settings import Settings
from shardwork_worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
#: beside the settings: where everything of a user lies, and the join line that a worker is started with
OTHERS = {"SHARDWORK_HOME", "SHARDWORK_JOIN", "SHARDWORK_IMAGE", "SHARDWORK_WORKER_IMAGE"}
VARIABLE = re.compile(r"\bSHARDWORK_[A-Z0-9_]+\b")
#: user of the images: not root, and no user of a usual machine
USER = 10001


def variables_of(model: Any) -> set[str]:
    return {f"SHARDWORK_{name.upper()}" for name in model.model_fields}


def unknown_variables(text: str) -> set[str]:
    """Names that look like settings and are none."""
    return set(VARIABLE.findall(text)) - variables_of(Settings) - variables_of(WorkerSettings) - OTHERS


def tool(name: str, package: str) -> str:
    """The program of a Python package or on the path; the test is skipped where it can't be had."""
    found = _of_package(name, package) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; it comes with {package}")
    return found


def _of_package(name: str, package: str) -> str | None:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((str(one.locate()) for one in files if one.name == name), None)
