"""Pages from pydantic models: settings, the job file, the recipes' parameters; and the metrics from a live registry.

A field's words are its `description`, or the `#:` line above it in the source.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import types
import typing
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any
from unittest import mock

import annotated_types
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tables import code, page, table

from shardwork.client.settings import ClientSettings
from shardwork.clock import SystemClock
from shardwork.config import ENV_PREFIX
from shardwork.jobs import spec as job
from shardwork.recipes import kinds, recipe
from shardwork_coordinator.engine import Engine
from shardwork_coordinator.links import Links
from shardwork_coordinator.settings import Settings
from shardwork_coordinator.store import MemoryStore
from shardwork_coordinator.web import metrics as live_metrics
from shardwork_worker.settings import WorkerSettings

PRECEDENCE = "A flag beats a variable, a variable beats `{file}` in the config folder, and that beats the default."
BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def coordinator_settings() -> str:
    return _settings("Settings of the coordinator", "coordinator.toml", Settings)


def worker_settings() -> str:
    return _settings("Settings of a worker", "worker.toml", WorkerSettings)


def client_settings() -> str:
    return _settings("Settings of the client", "client.toml", ClientSettings)


def job_file() -> str:
    sections: list[tuple[str, type[BaseModel]]] = [
        ("The job", job.JobSpec),
        ("A stage", job.StageSpec),
        ("An item of `data`", job.DataSource),
        ("`plan`", job.PlanSection),
        ("`trust`", job.TrustSection),
        ("`budget`", job.BudgetSection),
        ("`schedule`", job.ScheduleSection),
    ]
    parts = [f"## {title}\n\n{_summary(model)}\n\n{_fields(model)}" for title, model in sections]
    lead = (
        "A job file is YAML, JSON or TOML. A job with one stage may write the stage's keys flat beside the job's; "
        "several go under `stages`. `params` are the recipe's: see [recipes](recipes.md)."
    )
    return page("Keys of a job file", lead, *parts)


def recipes() -> str:
    parts: list[str] = []
    for kind in kinds():
        found = recipe(kind)
        about = (getattr(inspect.getmodule(type(found)), "__doc__", None) or "").strip()
        parts.append(f"## {kind}\n\n{about}\n\nStage type: `{found.stage_type}`.\n\n{_fields(found.Params)}")
    return page("Recipes and their parameters", *parts)


def metrics() -> str:
    """What one scrape of an empty coordinator registers."""
    seen: list[Any] = []

    register = CollectorRegistry.register

    def noting(registry: CollectorRegistry, collector: Any) -> None:
        seen.append(collector)
        register(registry, collector)

    async def scrape() -> None:
        store = MemoryStore()
        store.start()
        await live_metrics.scrape(Engine(store, Links(), SystemClock()))
        store.close()

    with mock.patch.object(CollectorRegistry, "register", noting):
        asyncio.run(scrape())
    rows = [
        # as it is exposed: a counter's samples end in _total
        (
            code(family.name + "_total" * (family.type == "counter")),
            family.type,
            ", ".join(map(code, collector._labelnames)),
            family.documentation,
        )
        for collector in seen
        for family in collector.describe()
    ]
    lead = "Served at `/metrics` of the web address, on loopback. Labels never hold ids."
    return page("Metrics", lead, table(("Metric", "Type", "Labels", "Meaning"), sorted(rows)))


# ---- one model ------------------------------------------------------------------------------------------------------


def _settings(title: str, file: str, model: type[BaseModel]) -> str:
    rows = [
        (code(name), code(ENV_PREFIX + name.upper()), _type(field), _default(field), _words(model, name, field))
        for name, field in model.model_fields.items()
    ]
    lead = PRECEDENCE.format(file=file)
    return page(title, lead, table(("Key", "Variable", "Type", "Default", "Meaning"), rows))


def _fields(model: type[BaseModel]) -> str:
    rows = [
        (code(field.alias or name), _type(field), _default(field), _words(model, name, field))
        for name, field in model.model_fields.items()
    ]
    return table(("Key", "Type", "Default", "Meaning"), rows)


def _summary(model: type[BaseModel]) -> str:
    return "" if model.__doc__ is None else inspect.cleandoc(model.__doc__)


def _words(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    return field.description or _comments(model).get(name, "")


def _comments(model: type[BaseModel]) -> dict[str, str]:
    """Field name -> the `#:` lines right above it, for the class and those it inherits from."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not (issubclass(cls, BaseModel) and cls is not BaseModel):
            continue
        lines = Path(inspect.getfile(cls)).read_text(encoding="utf-8").splitlines()
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
                found |= {_target(line): _above(lines, line.lineno) for line in node.body if _target(line)}
    return found


def _target(line: ast.stmt) -> str:
    return line.target.id if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) else ""


def _above(lines: list[str], number: int) -> str:
    said: list[str] = []
    for line in reversed(lines[: number - 1]):
        if not line.strip().startswith("#:"):
            break
        said.append(line.strip().removeprefix("#:").strip())
    return " ".join(reversed(said))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    factory: Any = field.default_factory
    value = factory() if factory is not None else field.default
    if isinstance(value, BaseModel):
        return "its own defaults"
    if value is None:
        return "none"
    return code(json.dumps(value.value if isinstance(value, StrEnum) else value))


def _type(field: FieldInfo) -> str:
    return ", ".join([_named(field.annotation), *_bounds(field.metadata)])


def _bounds(metadata: Iterable[object]) -> list[str]:
    found: list[str] = []
    for one in metadata:
        found += [f"{sign} {getattr(one, name)}" for name, sign in BOUNDS if hasattr(one, name)]
        if isinstance(one, annotated_types.MinLen):
            found.append(f"at least {one.min_length} long")
        if isinstance(one, annotated_types.MaxLen):
            found.append(f"at most {one.max_length} long")
    return found


def _named(annotation: Any) -> str:
    """A type as a person reads it."""
    origin, given = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _named(given[0])
    if origin is typing.Literal:
        return " or ".join(code(str(one)) for one in given)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_named(one) for one in given if one is not type(None))
    if origin is list:
        return f"list of {_named(given[0])}"
    if origin is dict:
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.__name__
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return " or ".join(code(one.value) for one in annotation)
    names = {str: "text", bool: "true or false", int: "integer", float: "number", Path: "path"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
