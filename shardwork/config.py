"""Where things lie and what is set: the XDG folders, and settings from file, environment and flags.

A flag beats SHARDWORK_*, which beats the TOML file, which beats the model's default. Every unknown key is an error that
names its place and the nearest valid one. Owns no setting itself: each command brings its pydantic model. Used by the
three commands' composition roots.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from platformdirs import PlatformDirs
from pydantic import BaseModel, ValidationError

from .errors import InvalidInput

S = TypeVar("S", bound=BaseModel)

ENV_PREFIX = "SHARDWORK_"
HOME_VARIABLE = "SHARDWORK_HOME"


@dataclass(frozen=True, slots=True)
class Home:
    """This user's folders; none is created here."""

    #: what the user writes: settings, keys, the join line
    config_dir: Path
    #: what must not be lost
    data_dir: Path
    #: what a restart continues from: logs, sockets, unfinished work
    state_dir: Path
    #: what may be deleted at any time
    cache_dir: Path

    @classmethod
    def find(cls, env: Mapping[str, str] = os.environ) -> Home:
        """Everything under SHARDWORK_HOME when it is set, else the platform's folders (XDG on Linux)."""
        root = env.get(HOME_VARIABLE)
        if root:
            base = Path(root).expanduser().absolute()
            return cls(base / "config", base / "data", base / "state", base / "cache")
        dirs = PlatformDirs("shardwork", appauthor=False)
        return cls(dirs.user_config_path, dirs.user_data_path, dirs.user_state_path, dirs.user_cache_path)

    def key_path(self, name: str) -> Path:
        """The private file of a key. It has a folder of its own, since that one must be closed to others."""
        return self.config_dir / "keys" / f"{name}.key"


def load_settings(
    model: type[S],
    file: Path | None,
    env: Mapping[str, str],
    flags: Mapping[str, object],
    *,
    other_variables: Collection[str] = (),
) -> S:
    """The settings as one checked `model`. A missing `file` sets nothing; a flag that is None was not given.

    `other_variables`: SHARDWORK_* names that belong to somebody else. Raises InvalidInput "config.unknown_key",
    "config.bad_value" or "config.bad_toml", naming file and line, variable or flag.
    """
    text, from_file = _read_toml(file)
    _check_keys(model, from_file, _FileOrigin(file, text))
    from_env = _read_env(model, env, {HOME_VARIABLE, *other_variables})
    from_flags = {key: value for key, value in flags.items() if value is not None}
    _check_keys(model, from_flags, _FlagOrigin())
    try:
        return model.model_validate({**from_file, **from_env, **from_flags})
    except ValidationError as error:
        raise _bad_value(model, error, from_flags, from_env, _FileOrigin(file, text)) from None


def origins(
    model: type[BaseModel],
    file: Path | None,
    env: Mapping[str, str],
    flags: Mapping[str, object],
    *,
    other_variables: Collection[str] = (),
) -> dict[str, str]:
    """Where each setting of `model` comes from, as one would look for it: "--join", "SHARDWORK_JOIN",
    "…/client.toml:2" or "default". Call it with what `load_settings` accepted."""
    text, from_file = _read_toml(file)
    from_env = _read_env(model, env, {HOME_VARIABLE, *other_variables})
    found: dict[str, str] = {}
    for key in model.model_fields:
        if flags.get(key) is not None:
            found[key] = _FlagOrigin().describe((key,))["flag"]
        elif key in from_env:
            found[key] = _EnvOrigin().describe((key,))["variable"]
        elif key in from_file:
            place = _FileOrigin(file, text).describe((key,))
            found[key] = ":".join(part for part in (place.get("file", ""), place.get("line", "")) if part)
        else:
            found[key] = "default"
    return found


class _FlagOrigin:
    def describe(self, path: tuple[str, ...]) -> dict[str, str]:
        return {"flag": "--" + "-".join(path).replace("_", "-")}


class _EnvOrigin:
    def describe(self, path: tuple[str, ...]) -> dict[str, str]:
        return {"variable": ENV_PREFIX + path[0].upper()}


@dataclass(frozen=True, slots=True)
class _FileOrigin:
    file: Path | None
    text: str

    def describe(self, path: tuple[str, ...]) -> dict[str, str]:
        line = self._line(path)
        file = {"file": str(self.file)} if self.file else {}
        return {**file, **({"line": str(line)} if line else {}), "key": ".".join(path)}

    def _line(self, path: tuple[str, ...]) -> int | None:
        """The line that sets the key or opens its table, found by its spelling after its table's header."""
        table, lines = ".".join(path[:-1]), self.text.splitlines()
        current = ""
        for number, line in enumerate(lines, start=1):
            header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line)
            if header:
                current = header[1].replace('"', "").replace(" ", "")
                if current == ".".join(path):
                    return number
            elif current == table and re.match(rf"""\s*["']?{re.escape(path[-1])}["']?\s*[=.]""", line):
                return number
        return None


_Origin = _FlagOrigin | _EnvOrigin | _FileOrigin


def _read_toml(file: Path | None) -> tuple[str, dict[str, Any]]:
    if file is None:
        return "", {}
    try:
        text = file.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        return "", {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        found = re.search(r"line (\d+)", str(error))
        line = {"line": found[1]} if found else {}
        raise InvalidInput(
            "config.bad_toml",
            "The settings file is not valid TOML.",
            next_step="Mend that place, or move the file away.",
            file=file,
            **line,
            problem=error,
        ) from None
    except OSError as error:
        raise InvalidInput(
            "config.unreadable",
            "The settings file cannot be read.",
            next_step="Check that it is a file, and that you may read it.",
            file=file,
            problem=error.strerror,
        ) from None


def _read_env(model: type[BaseModel], env: Mapping[str, str], others: Collection[str]) -> dict[str, Any]:
    """Values of SHARDWORK_<KEY>. Lists and tables are JSON; anything else is text that pydantic converts."""
    found: dict[str, Any] = {}
    for variable in sorted(env):
        if not variable.startswith(ENV_PREFIX) or variable in others:
            continue
        key = variable.removeprefix(ENV_PREFIX).lower()
        if key not in model.model_fields:
            known = [ENV_PREFIX + name.upper() for name in model.model_fields]
            raise _unknown(variable, known, {"variable": variable})
        found[key] = _env_value(env[variable])
    return found


def _env_value(text: str) -> object:
    if text.startswith(("[", "{")):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _check_keys(model: type[BaseModel], values: Mapping[str, Any], origin: _Origin, path: tuple[str, ...] = ()) -> None:
    for key, value in values.items():
        if key not in model.model_fields:
            raise _unknown(key, model.model_fields, origin.describe((*path, key)))
        inner = model.model_fields[key].annotation
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, BaseModel):
            _check_keys(inner, cast(dict[str, Any], value), origin, (*path, key))


def _unknown(key: str, known: Iterable[str], where: Mapping[str, str]) -> InvalidInput:
    valid = sorted(known)
    # what all names share says nothing about which was meant
    shared = ENV_PREFIX if key.startswith(ENV_PREFIX) else ""
    bare = [name.removeprefix(shared) for name in valid]
    nearest = [shared + near for near in difflib.get_close_matches(key.removeprefix(shared), bare, n=1, cutoff=0.5)]
    next_step = f"Did you mean {nearest[0]}?" if nearest else f"Valid: {', '.join(valid) or 'nothing'}."
    return InvalidInput("config.unknown_key", f"There is no setting {key!r}.", next_step=next_step, **where)


def _bad_value(
    model: type[BaseModel],
    error: ValidationError,
    flags: Mapping[str, object],
    env: Mapping[str, object],
    file: _FileOrigin,
) -> InvalidInput:
    first = error.errors(include_url=False)[0]
    path = tuple(str(part) for part in first["loc"]) or ("",)
    origin = _FlagOrigin() if path[0] in flags else _EnvOrigin() if path[0] in env else file
    sentence = f"The setting {'.'.join(path)!r} is not valid: {first['msg'].removeprefix('Value error, ')}."
    info = model.model_fields.get(path[0])
    next_step = f"It is: {info.description}." if info is not None and info.description else ""
    return InvalidInput("config.bad_value", sentence, next_step=next_step, **origin.describe(path))
