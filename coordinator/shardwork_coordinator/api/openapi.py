"""The OpenAPI document of a table of routes: parameters, bodies and answers from the messages that serve them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardwork.protocol import software_version

from .mapping import field_schema, fields_of, schema_of
from .routes import Route

_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "param", "next_step", "evidence"],
            "properties": {
                "code": {"type": "string", "description": "stable, dotted"},
                "message": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "the field that is wrong"},
                "next_step": {"type": "string"},
                "evidence": {"type": "object", "additionalProperties": {"type": "string"}},
                "problems": {"type": "array", "items": {"type": "object"}, "description": "of rows, with their lines"},
            },
        }
    },
}
_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "string", "contentMediaType": "application/octet-stream"}},
}
_KEY = {"type": "http", "scheme": "bearer", "description": "sk-shardwork-…, from `shardwork api-key create`"}
_RANGES = {"206": {"description": "The range."}, "416": {"description": "No such range."}}
_IDEMPOTENT = ("submit_job",)


def document(table: Sequence[Route], prefix: str) -> dict[str, Any]:
    schemas: dict[str, Any] = {"Error": _ERROR}
    paths: dict[str, Any] = {}
    for route in table:
        place = paths.setdefault(route.path.replace(":path}", "}"), {})
        place[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Shardwork", "version": software_version()},
        "servers": [{"url": prefix}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {"securitySchemes": {"key": _KEY}, "schemas": schemas},
    }


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    made: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": [_in_path(name) for name in route.in_path] + _in_query(route, schemas) + _in_header(route),
        "responses": {
            "200": {"description": "As asked.", "content": _content(route, schemas)},
            **(_RANGES if _has_ranges(route) else {}),
            "4XX": {"description": "Refused; the body says why.", "content": error},
            "5XX": {"description": "The coordinator can't now; the body says why.", "content": error},
        },
    }
    if route.reads_body:
        made["requestBody"] = {"required": True, "content": _body(route, schemas)}
    return made


def _has_ranges(route: Route) -> bool:
    return route.gives == "application/octet-stream"


def _content(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    if isinstance(route.gives, str):
        return {route.gives: {"schema": {"type": "object"} if route.gives == "application/json" else {}}}
    return {"application/json": {"schema": schema_of(route.gives.DESCRIPTOR, schemas)}}


def _body(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    if route.is_form:
        return {"multipart/form-data": {"schema": _FORM}}
    return {"application/json": {"schema": _own_schema(route, schemas)}}


def _own_schema(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    """The message without what the path says, and with what stands beside it."""
    fields = fields_of(route.takes.DESCRIPTOR) if route.takes else []
    own = {field.name: field_schema(field, schemas) for field in fields if field.name not in route.in_path}
    own |= dict(route.beside)
    return {"type": "object", "additionalProperties": False, "properties": own}


def _in_path(name: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(route: Route, schemas: dict[str, Any]) -> list[dict[str, Any]]:
    if route.reads_body or route.takes is None:
        return []
    found: list[dict[str, Any]] = []
    for field in fields_of(route.takes.DESCRIPTOR):
        if field.name in route.in_path:
            continue
        schema = field_schema(field, schemas)
        more = {"style": "form", "explode": False} if field.is_repeated else {}
        found.append({"name": field.name, "in": "query", "schema": schema, **more})
    return found


def _in_header(route: Route) -> list[dict[str, Any]]:
    schema = {"type": "string"}
    if route.name in _IDEMPOTENT:
        return [{"name": "Idempotency-Key", "in": "header", "schema": schema, "description": "8 to 64 letters"}]
    if route.gives == "text/event-stream":
        return [{"name": "Last-Event-ID", "in": "header", "schema": schema, "description": "the last one that came"}]
    if _has_ranges(route):
        return [{"name": "Range", "in": "header", "schema": schema, "description": "bytes=FIRST-LAST"}]
    return []
