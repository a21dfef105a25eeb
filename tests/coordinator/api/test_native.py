"""/api/v1 as a requester's program uses it: files in, a job's life, its events, money, bytes out."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from dataclasses import replace
from typing import Any

import httpx
import pytest

from shardwork_coordinator.api import native, openapi
from shardwork_coordinator.records import Event

from .stand import SATS, Stand, count_job, rows, send, submit

V1 = "/api/v1"


async def test_a_job_lives_from_quote_to_refund(anna: httpx.AsyncClient) -> None:
    body = count_job(await send(anna))
    asked = {"spec": body["spec"], "facts": body["facts"]}
    quote = (await anna.post(f"{V1}/jobs/quote", json=asked)).json()["quote"]
    assert isinstance(quote["reserve_msat"], int) and quote["reserve_msat"] > 0
    job = (await anna.post(f"{V1}/jobs", json=body)).json()["job_id"]
    balance = (await anna.get(f"{V1}/wallet/balance")).json()
    assert (balance["available_msat"], balance["held_msat"]) == (
        SATS * 1000 - quote["reserve_msat"],
        quote["reserve_msat"],
    )
    for action, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        preview = (await anna.get(f"{V1}/jobs/{job}/preview", params={"action": action})).json()
        assert preview["why"]["code"] == f"cost.{action}"
        assert (await anna.post(f"{V1}/jobs/{job}/{action}")).json()["job"]["state"] == state
    assert (await anna.get(f"{V1}/wallet/balance")).json()["available_msat"] == SATS * 1000
    report = (await anna.get(f"{V1}/jobs/{job}/report")).json()
    assert (report["job"]["refunded_msat"], report["payments"]) == (quote["reserve_msat"], [])
    kinds = [each["kind"] for each in (await anna.get(f"{V1}/wallet/transfers")).json()["transfers"]]
    assert kinds[0] == "refund" and kinds[-1] == "deposit"


async def test_the_same_key_is_the_same_job_and_another_job_under_it_is_refused(anna: httpx.AsyncClient) -> None:
    first = await submit(anna, "the-same-key")
    assert await submit(anna, "the-same-key") == first
    body = count_job(await send(anna), name="other")
    refused = await anna.post(f"{V1}/jobs", json=body, headers={"Idempotency-Key": "the-same-key"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job.submission_reused")


async def test_a_retry_finds_its_job_also_after_prices_rose(stand: Stand, anna: httpx.AsyncClient) -> None:
    first = await submit(anna, "before-prices-rose")
    stand.desk.jobs.rates = replace(stand.desk.jobs.rates, minimum_msat=1_000_000)
    assert await submit(anna, "before-prices-rose") == first
    refused = await anna.post(f"{V1}/jobs", json=count_job(await send(anna)), headers={"Idempotency-Key": "afterwards"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "budget.below_plan")


async def test_jobs_are_paged_and_filtered_by_state(anna: httpx.AsyncClient, bert: httpx.AsyncClient) -> None:
    made = [await submit(anna, f"number-{number}") for number in range(3)]
    await anna.post(f"{V1}/jobs/{made[0]}/cancel")
    first = (await anna.get(f"{V1}/jobs", params={"page_size": 2})).json()
    second = (await anna.get(f"{V1}/jobs", params={"page_size": 2, "page_token": first["next_page_token"]})).json()
    assert sorted(job["id"] for page in (first, second) for job in page["jobs"]) == sorted(made)
    cancelled = (await anna.get(f"{V1}/jobs", params={"states": "cancelled,failed"})).json()
    assert [job["id"] for job in cancelled["jobs"]] == [made[0]]
    assert (await bert.get(f"{V1}/jobs")).json()["jobs"] == []


async def test_a_top_up_happens_once_for_a_key(anna: httpx.AsyncClient) -> None:
    job = await submit(anna)
    body = {"msat": 5_000, "idempotency_key": "top-up-1"}
    views = [(await anna.post(f"{V1}/jobs/{job}/topup", json=body)).json()["job"] for _ in range(2)]
    assert [view["topped_up_msat"] for view in views] == [5_000, 5_000]


async def events_of(client: httpx.AsyncClient, job: str, **more: Any) -> list[dict[str, str]]:
    """What a stream said until it ended."""
    answer = await client.get(f"{V1}/jobs/{job}/events/stream", **more)
    assert answer.status_code == 200, answer.text
    blocks = [block for block in answer.text.replace("\r\n", "\n").split("\n\n") if block.strip()]
    return [dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":")) for block in blocks]


async def test_a_stream_of_events_goes_on_behind_the_last_one_and_ends_with_the_job(anna: httpx.AsyncClient) -> None:
    job = await submit(anna)
    await anna.post(f"{V1}/jobs/{job}/cancel")
    said = await events_of(anna, job)
    events = [each for each in said if each["event"] == "job.event"]
    assert said[-1]["event"] == "job.end" and json.loads(events[-1]["data"])["kind"] == "job.cancelled"
    listed = (await anna.get(f"{V1}/jobs/{job}/events")).json()["events"]
    assert [each["id"] for each in events] == [str(each["sequence"]) for each in listed]
    late = await events_of(anna, job, headers={"Last-Event-ID": events[-2]["id"]})
    assert [each["id"] for each in late if each["event"] == "job.event"] == [events[-1]["id"]]


async def test_a_stream_hears_what_happens_while_it_is_open(stand: Stand, anna: httpx.AsyncClient) -> None:
    job = await submit(anna)
    following = asyncio.create_task(events_of(anna, job))
    while not stand.desk.jobs.watching:
        await asyncio.sleep(0)
    await anna.post(f"{V1}/jobs/{job}/cancel")
    assert [each["event"] for each in await following][-1] == "job.end"
    assert not stand.desk.jobs.watching


@pytest.mark.parametrize("wrong", ["x", "-1", "1.5", "9" * 19, "９", "1\t2"])
async def test_a_last_event_id_that_no_stream_said_is_refused(anna: httpx.AsyncClient, wrong: str) -> None:
    job = await submit(anna)
    headers = {b"Last-Event-ID": wrong.encode()}
    refused = await anna.get(f"{V1}/jobs/{job}/events/stream", headers=headers)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Last-Event-ID")


async def test_a_file_comes_back_whole_in_ranges_and_as_a_tar(anna: httpx.AsyncClient) -> None:
    data = bytes(range(256)) * 9_000
    artifact = await send(anna, data, "../../etc/pass wd.txt")
    files = (await anna.get(f"{V1}/artifacts/{artifact}")).json()["files"]
    assert files == [{"path": "00000-pass wd.txt", "bytes": len(data)}]
    place = f"{V1}/artifacts/{artifact}/files/00000-pass wd.txt"
    whole = await anna.get(place)
    assert whole.content == data and whole.headers["content-length"] == str(len(data))
    for asked, wanted in (
        ("bytes=0-0", data[:1]),
        ("bytes=1048570-1048580", data[1048570:1048581]),
        (f"bytes=2000000-{10**12}", data[2000000:]),
        ("bytes=-7", data[-7:]),
    ):
        part = await anna.get(place, headers={"Range": asked})
        assert (part.status_code, part.content) == (206, wanted)
    assert (await anna.get(place, headers={"Range": f"bytes={len(data)}-"})).status_code == 416
    assert (await anna.get(place, headers={"Range": "lines=1-2"})).status_code == 200
    tar = await anna.get(f"{V1}/artifacts/{artifact}/tar")
    with tarfile.open(fileobj=io.BytesIO(tar.content)) as found:
        member = found.getmembers()[0]
        reader = found.extractfile(member)
        assert reader is not None and reader.read() == data
    cut = await anna.get(f"{V1}/artifacts/{artifact}/tar", headers={"Range": "bytes=500-1700"})
    assert cut.content == tar.content[500:1701]


async def test_a_job_of_an_offered_model_is_measured_here(stand: Stand, anna: httpx.AsyncClient) -> None:
    await stand.offer()
    assert [each["base_model"] for each in (await anna.get(f"{V1}/models")).json()["models"]] == ["offered:tiny"]
    artifact = await send(anna, rows(), "chat.jsonl")
    words = count_job(await send(anna))
    measured = {"spec": words["spec"], "inputs": {"words.data": words["inputs"][0]["artifact_id"]}}
    assert (await anna.post(f"{V1}/jobs/quote", json=measured)).json()["quote"]["reserve_msat"] > 0
    stage = {"name": "tune", "recipe": "sft", "base_model": "offered:tiny", "data": ["chat.jsonl"]}
    spec = {"name": "t", "stages": [stage], "trust": {"class": "public"}, "budget": {"max_sats": 500}}
    body = {"spec": spec, "inputs": [{"name": "tune.data", "artifact_id": artifact}]}
    answer = await anna.post(f"{V1}/jobs", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["quote"]["phases"][0]["work_units"] > 0
    broken = await send(anna, rows() + b'{"messages": [{"role": "user"}]}\n', "bad.jsonl")
    body["inputs"] = [{"name": "tune.data", "artifact_id": broken}]
    refused = await anna.post(f"{V1}/jobs", json=body)
    problem = refused.json()["error"]["problems"][0]
    assert (refused.status_code, problem["file"], problem["line"]) == (400, "bad.jsonl", 41)
    assert str(stand.folder) not in refused.text


async def test_every_route_is_documented_and_every_reference_leads_somewhere(anna: httpx.AsyncClient) -> None:
    document = (await anna.get(f"{V1}/openapi.json")).json()
    assert document == openapi.document(native.TABLE, native.PREFIX)
    assert {(method, path) for path, place in document["paths"].items() for method in place} == {
        (route.method.lower(), route.path.replace(":path}", "}")) for route in native.TABLE
    }
    schemas = document["components"]["schemas"]
    named = {part.rpartition("/")[2] for part in json.dumps(document).split('"') if part.startswith("#/components")}
    assert named <= set(schemas)
    sequence = schemas["JobEvent"]["properties"]["sequence"]
    assert sequence["type"] == "integer"


async def test_events_come_with_numbers_as_numbers(stand: Stand, anna: httpx.AsyncClient) -> None:
    job = await submit(anna)
    page = (await anna.get(f"{V1}/jobs/{job}/events", params={"limit": 1})).json()["events"]
    row = (await stand.store.read(lambda tx: tx.find(Event, job_id=job, order="sequence")))[0]
    assert (page[0]["sequence"], page[0]["at_unix_ms"]) == (row.sequence, row.at_ms)
