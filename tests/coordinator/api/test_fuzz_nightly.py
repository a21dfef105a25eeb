"""Whatever is sent to either face is answered in its form, and never by an error of our own."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardwork_coordinator.api import native
from shardwork_coordinator.api.keys import KeyGate
from shardwork_coordinator.api.openai import files, jobs, models
from shardwork_coordinator.store import SqlStore

from .stand import ANNA, rows, standing, submit

pytestmark = pytest.mark.nightly

ODD = ["", "0", "-1", "x" * 5_000, "../..", "\0", "\ud800", "%00", "é", "true"]
NUMBERS = st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([0, 1, -1, 2**63, 2**64 - 1, 1e308])
TEXTS = st.text(max_size=60) | st.sampled_from(
    ["", "0", "-1", "x" * 5_000, "../..", "\0", "\ud800", "%00", "é", "true"]
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
TABLES = [("/api/v1", route) for route in native.TABLE] + [
    ("/v1", route) for route in (*files.TABLE, *jobs.TABLE, *models.TABLE)
]
FIELDS = ("model", "training_file", "validation_file", "suffix", "seed", "hyperparameters", "method", "metadata")


@pytest.fixture(scope="module")
def called() -> Iterator[Any]:
    """Calls the API with a key whose owner has a job, an upload and a file."""
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as folder:
        place = standing(Path(folder), SqlStore(f"sqlite:///{folder}/rows.db"))
        stand = loop.run_until_complete(place.__aenter__())
        stand.desk.gate = KeyGate(stand.store, stand.clock, burst=10**9, per_s=1e9)
        anna = loop.run_until_complete(stand.party(ANNA))
        loop.run_until_complete(stand.offer())
        job = loop.run_until_complete(submit(anna))
        sent = anna.post("/v1/files", files={"file": ("a.jsonl", rows(9))}, data={"purpose": "fine-tune"})
        file = loop.run_until_complete(sent).json()["id"]
        loop.run_until_complete(anna.post(f"/api/v1/jobs/{job}/cancel"))

        def call(method: str, path: str, **more: Any) -> httpx.Response:
            return loop.run_until_complete(anna.request(method, path, **more))

        yield call, {"job_id": job, "job": f"ftjob-{job}", "file_id": file, "name": "tiny", "model": "tiny"}
        loop.run_until_complete(place.__aexit__(None, None, None))
    loop.close()


def sound(text: str) -> str:
    """As a client can send it in an address."""
    return text.encode("utf-8", "replace").decode()


def fields_of(route: Any) -> list[str]:
    known = [field.name for field in route.takes.DESCRIPTOR.fields] if route.takes else list(FIELDS)
    return [*known, *(name for name, _ in route.beside)]


@settings(
    max_examples=1_500,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(data=st.data())
def test_no_call_ends_in_an_error_of_our_own(called: Any, data: st.DataObject) -> None:
    call, known = called
    prefix, route = data.draw(st.sampled_from(TABLES))
    path = prefix + route.path.replace(":path}", "}")
    for name in route.in_path:
        value = data.draw(st.sampled_from([known.get(name, "x")]) | TEXTS)
        path = path.replace(
            "{" + name + "}", httpx.URL("http://x", params={"p": value.encode("utf-8", "replace")}).query.decode()[2:]
        )
    more: dict[str, Any] = {}
    names = st.sampled_from(fields_of(route)) | TEXTS if fields_of(route) else TEXTS
    if route.is_form:
        more["content"] = data.draw(st.binary(max_size=300))
        more["headers"] = {
            "Content-Type": data.draw(st.sampled_from(["multipart/form-data; boundary=b", "text/plain"]))
        }
    elif route.reads_body:
        body = data.draw(st.dictionaries(names, JSON, max_size=5) | JSON)
        more["content"] = json.dumps(body).encode()
    else:
        pairs = data.draw(st.dictionaries(names, TEXTS, max_size=3))
        more["params"] = {
            k.encode("utf-8", "replace").decode(): v.encode("utf-8", "replace").decode() for k, v in pairs.items()
        }
    answer = call(route.method, path, **more)
    assert answer.status_code < 500, (route.name, path, more, answer.text)
    if answer.status_code >= 400 and answer.status_code != 416:
        found = answer.json()["error"]
        assert found["code"] and found["message"] and "param" in found
