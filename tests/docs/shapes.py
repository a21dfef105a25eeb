"""The published shapes of `--json` outputs, for tests that check real outputs against them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "docs" / "json_shapes.py"


def loaded() -> Any:
    """The module docs/json_shapes.py, which is a script's and not on the path."""
    spec = importlib.util.spec_from_file_location("json_shapes", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # models look themselves up there
    sys.modules[spec.name] = module
    sys.path.insert(0, str(FILE.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FILE.parent))
    return module


MODULE = loaded()


def check(command: str, line: str) -> Any:
    """Fails unless `line`, one line of the command's output, is of its published shape; what the line holds."""
    MODULE.SHAPES[command].model_validate_json(line)
    return json.loads(line)
