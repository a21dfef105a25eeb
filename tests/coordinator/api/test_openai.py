"""/v1 in the words of its clients: files with their rows checked, jobs that are created once, models and their ends."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest

from shardwork_coordinator.api.openai import files, tuning
from shardwork_coordinator.api.openai.asked import Asked
from shardwork_coordinator.artifacts.expiry import Expiry
from shardwork_coordinator.records import Job, JobState, Party, Round, RoundState
from shardwork_coordinator.store.base import Transaction

from .stand import SATS, Stand, rows

JOBS = "/v1/fine_tuning/jobs"


@pytest.fixture
async def offering(stand: Stand) -> Stand:
    await stand.offer()
    return stand


async def upload(
    client: httpx.AsyncClient, data: bytes | None = None, fields: Mapping[str, str] | None = None
) -> httpx.Response:
    files = {"file": ("chat.jsonl", io.BytesIO(rows() if data is None else data))}
    return await client.post("/v1/files", files=files, data={"purpose": "fine-tune", **(fields or {})})


async def uploaded(client: httpx.AsyncClient, data: bytes | None = None) -> str:
    answer = await upload(client, data)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def create(client: httpx.AsyncClient, headers: Mapping[str, str] | None = None, **body: Any) -> httpx.Response:
    return await client.post(JOBS, json={"model": "tiny", **body}, headers=headers)


def error(answer: httpx.Response) -> tuple[int, str, str | None]:
    found = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return answer.status_code, found["code"], found["param"]


# ---- files --------------------------------------------------------------------------------------------------------


async def test_a_file_is_listed_read_back_and_gone_when_it_was_deleted(anna: httpx.AsyncClient) -> None:
    first, second = await uploaded(anna), await uploaded(anna, rows(9))
    shown = (await anna.get(f"/v1/files/{first}")).json()
    assert (shown["object"], shown["filename"], shown["bytes"]) == ("file", "chat.jsonl", len(rows()))
    assert (await anna.get(f"/v1/files/{first}/content")).content == rows()
    listed = (await anna.get("/v1/files", params={"limit": 1, "order": "asc"})).json()
    rest = (await anna.get("/v1/files", params={"after": listed["last_id"], "order": "asc"})).json()
    assert listed["has_more"] and not rest["has_more"]
    assert {listed["data"][0]["id"], rest["data"][0]["id"]} == {first, second}
    assert (await anna.delete(f"/v1/files/{first}")).json() == {"id": first, "object": "file", "deleted": True}
    assert error(await anna.get(f"/v1/files/{first}"))[:2] == (404, "file.not_found")
    assert len((await anna.get("/api/v1/artifacts")).json()["artifacts"]) == 1


async def test_files_that_are_sent_at_the_same_time_all_arrive_and_a_flood_is_told_to_wait(
    stand: Stand, anna: httpx.AsyncClient
) -> None:
    answers = await asyncio.gather(*(upload(anna, rows(number)) for number in range(1, 12)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(answers) - len(refused) >= 4 and not stand.desk.receiving
    assert all(answer.status_code == 429 and answer.headers["retry-after"] for answer in refused)
    assert len((await anna.get("/v1/files")).json()["data"]) == len(answers) - len(refused)


async def test_two_names_of_one_content_are_given_up_one_after_the_other(anna: httpx.AsyncClient) -> None:
    first, second = await uploaded(anna), await uploaded(anna)
    await anna.delete(f"/v1/files/{first}")
    assert (await anna.get(f"/v1/files/{second}/content")).content == rows()


async def test_a_file_whose_content_was_given_up_is_no_file(offering: Stand, anna: httpx.AsyncClient) -> None:
    file = await uploaded(anna)
    artifact = (await anna.get("/api/v1/artifacts")).json()["artifacts"][0]["artifact_id"]
    await anna.delete(f"/api/v1/artifacts/{artifact}")
    assert error(await anna.get(f"/v1/files/{file}"))[:2] == (404, "file.not_found")
    assert (await anna.get("/v1/files")).json()["data"] == []
    assert error(await create(anna, training_file=file)) == (404, "file.not_found", "training_file")


async def test_a_list_goes_on_behind_a_file_that_was_deleted_meanwhile(stand: Stand, anna: httpx.AsyncClient) -> None:
    for number in range(1, 5):
        await uploaded(anna, rows(number))
        stand.clock.advance(1)
    seen: list[str] = []
    page: dict[str, Any] = {"last_id": "", "has_more": True}
    while page["has_more"]:
        page = (await anna.get("/v1/files", params={"limit": 2, "after": page["last_id"]})).json()
        seen += [each["id"] for each in page["data"]]
        for each in page["data"]:
            await anna.delete(f"/v1/files/{each['id']}")
    assert len(set(seen)) == 4 and (await anna.get("/v1/files")).json()["data"] == []


async def test_names_of_files_are_bounded_and_another_ones_do_not_count(
    anna: httpx.AsyncClient, bert: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_FILES", 2)
    first, _ = await uploaded(anna), await uploaded(anna)
    assert error(await upload(anna))[:2] == (429, "file.too_many")
    await uploaded(bert)
    await anna.delete(f"/v1/files/{first}")
    await uploaded(anna)


async def test_a_full_disk_is_told_and_nothing_is_left_on_it(stand: Stand, anna: httpx.AsyncClient) -> None:
    stand.desk.artifacts.limits = replace(stand.desk.artifacts.limits, reserve_bytes=1 << 60)
    answer = await upload(anna)
    assert error(answer)[:2] == (507, "artifact.no_space") and answer.headers["x-should-retry"] == "false"
    assert list(stand.desk.scratch.glob("*")) == []


async def test_a_file_ends_with_the_date_that_it_told(stand: Stand, anna: httpx.AsyncClient) -> None:
    answer = (await upload(anna)).json()
    stand.clock.advance(answer["expires_at"] - answer["created_at"])
    assert error(await anna.get(f"/v1/files/{answer['id']}"))[0] == 404
    assert (await anna.get("/v1/files")).json()["data"] == []


async def test_a_file_is_stored_as_long_as_it_told_and_not_longer(stand: Stand, anna: httpx.AsyncClient) -> None:
    answer = (await upload(anna)).json()
    expiry = Expiry(stand.store, stand.desk.artifacts.contents, stand.clock, stand.desk.artifacts.limits)
    stand.clock.advance(answer["expires_at"] - answer["created_at"] - 1)
    await expiry.sweep()
    assert (await anna.get(f"/v1/files/{answer['id']}/content")).content == rows()
    stand.clock.advance(1)
    await expiry.sweep()
    assert (await anna.get("/api/v1/artifacts")).json()["artifacts"] == []


@pytest.mark.parametrize(
    ("data", "line", "says"),
    [
        (rows(3) + b"{", 4, "chat.jsonl:4"),
        (rows(2) + b'{"messages": [{"role": "robot", "content": "x"}]}\n', 3, "robot"),
        (rows(2) + b'{"messages": []}\n', 3, "chat.jsonl:3"),
        (rows(1) + b'{"prompts": "x"}\n', 2, "chat.jsonl:2"),
        (b'{"a": "\xff"}\n', 1, "UTF-8"),
        (
            rows(2) + b'{"messages": [{"role": "user", "content": "a"}, '
            b'{"role": "assistant", "content": "b", "weight": 0}]}\n',
            3,
            "weight",
        ),
    ],
)
async def test_a_wrong_row_is_told_with_its_line(anna: httpx.AsyncClient, data: bytes, line: int, says: str) -> None:
    answer = await upload(anna, data)
    assert error(answer) == (400, "data.invalid", "file")
    assert says in answer.json()["error"]["message"] and f":{line}:" in answer.json()["error"]["message"]
    assert (await anna.get("/v1/files")).json()["data"] == []


@pytest.mark.parametrize(
    ("fields", "param"), [({"purpose": "batch"}, "purpose"), ({"expires_after[anchor]": "x"}, "expires_after[anchor]")]
)
async def test_what_a_file_cannot_be_is_named(anna: httpx.AsyncClient, fields: dict[str, str], param: str) -> None:
    assert error(await upload(anna, fields=fields))[::2] == (400, param)


# ---- jobs ---------------------------------------------------------------------------------------------------------


async def test_a_job_is_created_steered_and_refunded(offering: Stand, anna: httpx.AsyncClient) -> None:
    train, valid = await uploaded(anna), await uploaded(anna, rows(9))
    answer = await create(
        anna,
        training_file=train,
        validation_file=valid,
        suffix="try-1",
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto"}}},
        metadata={"team": "rivers"},
    )
    assert answer.status_code == 200, answer.text
    job = answer.json()
    assert (job["status"], job["fine_tuned_model"], job["result_files"]) == ("validating_files", None, [])
    assert job["hyperparameters"] == {"n_epochs": 2, "batch_size": 5, "learning_rate_multiplier": 1.0}
    assert (job["validation_file"], job["metadata"]) == (valid, {"team": "rivers"})
    cap = job["shardwork"]["budget_msat"]
    assert (await anna.get("/api/v1/wallet/balance")).json()["available_msat"] == SATS * 1000 - cap
    assert error(await anna.delete(f"/v1/files/{train}"))[:2] == (409, "artifact.in_use")
    for verb, status in (("pause", "paused"), ("resume", "validating_files"), ("cancel", "cancelled")):
        assert (await anna.post(f"{JOBS}/{job['id']}/{verb}")).json()["status"] == status
    assert error(await anna.post(f"{JOBS}/{job['id']}/pause"))[:2] == (409, "job.final")
    assert (await anna.get("/api/v1/wallet/balance")).json()["available_msat"] == SATS * 1000
    events = (await anna.get(f"{JOBS}/{job['id']}/events", params={"limit": 2})).json()
    assert events["has_more"] and events["data"][0]["data"]["code"] == "job.cancelled"
    more = (await anna.get(f"{JOBS}/{job['id']}/events", params={"after": events["last_id"]})).json()
    assert not {each["id"] for each in more["data"]} & {each["id"] for each in events["data"]}
    assert (await anna.get(f"{JOBS}/{job['id']}/checkpoints")).json()["data"] == []
    assert (await anna.delete(f"/v1/files/{train}")).status_code == 200


async def test_the_same_seed_and_wishes_are_the_same_job_until_it_was_cancelled(
    offering: Stand, anna: httpx.AsyncClient
) -> None:
    train = await uploaded(anna)
    first = (await create(anna, training_file=train, seed=7)).json()
    assert (await create(anna, training_file=train, seed=7)).json()["id"] == first["id"]
    assert (await create(anna, training_file=train, seed=8)).json()["id"] != first["id"]
    drawn = (await create(anna, training_file=train)).json()
    assert (await create(anna, training_file=train, seed=drawn["seed"])).json()["id"] == drawn["id"]
    await anna.post(f"{JOBS}/{first['id']}/cancel")
    again = (await create(anna, training_file=train, seed=7)).json()
    assert again["id"] != first["id"] and again["seed"] == 7
    listed = (await anna.get(JOBS, params={"limit": 3})).json()
    rest = (await anna.get(JOBS, params={"after": listed["last_id"]})).json()
    assert (len(listed["data"]), listed["has_more"], len(rest["data"]), rest["has_more"]) == (3, True, 1, False)


async def test_a_client_that_tries_again_pays_once(offering: Stand, anna: httpx.AsyncClient) -> None:
    train = await uploaded(anna)
    first = (await create(anna, {"x-stainless-retry-count": "0"}, training_file=train)).json()["id"]
    for count in ("1", "2"):
        headers = {"x-stainless-retry-count": count}
        assert (await create(anna, headers, training_file=train)).json()["id"] == first
    assert (await create(anna, {"x-stainless-retry-count": "0"}, training_file=train)).json()["id"] != first
    key = {"Idempotency-Key": "mine"}
    keyed = [(await create(anna, key, training_file=train)).json()["id"] for _ in range(2)]
    assert keyed[0] == keyed[1]


@pytest.mark.parametrize("headers", [{"Idempotency-Key": "mine"}, {"x-stainless-retry-count": "1"}])
async def test_a_retry_finds_the_first_job_also_when_it_has_ended(
    offering: Stand, anna: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    train = await uploaded(anna)
    first = (await create(anna, headers, training_file=train)).json()["id"]
    await anna.post(f"{JOBS}/{first}/cancel")
    again = (await create(anna, headers, training_file=train)).json()
    assert (again["id"], again["status"]) == (first, "cancelled")
    assert (await anna.get("/api/v1/wallet/balance")).json()["held_msat"] == 0


async def test_a_key_belongs_to_its_first_wishes(offering: Stand, anna: httpx.AsyncClient) -> None:
    train, key = await uploaded(anna), {"Idempotency-Key": "mine"}
    assert (await create(anna, key, training_file=train)).status_code == 200
    assert error(await create(anna, key, training_file=train, suffix="other"))[:2] == (409, "tuning.key_reused")
    assert len((await anna.get(JOBS)).json()["data"]) == 1


async def test_tries_at_the_same_time_make_one_job(offering: Stand, anna: httpx.AsyncClient) -> None:
    train = await uploaded(anna)
    tries = [create(anna, {"Idempotency-Key": "mine"}, training_file=train) for _ in range(4)]
    assert len({answer.json()["id"] for answer in await asyncio.gather(*tries)}) == 1
    assert len((await anna.get(JOBS)).json()["data"]) == 1


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "tuning.not_built", "integrations"),
        ({"method": {"type": "dpo", "dpo": {}}}, "tuning.not_built", "method.type"),
        ({"method": {"type": "supervised", "reinforcement": {}}}, "tuning.not_built", "method.reinforcement"),
        ({"hyperparameters": {"n_epochs": 0}}, "tuning.bad_field", "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": "many"}}, "tuning.bad_field", "hyperparameters.n_epochs"),
        ({"hyperparameters": {"beta": 1}}, "tuning.bad_field", "hyperparameters.beta"),
        (
            {"hyperparameters": {"learning_rate_multiplier": -1}},
            "tuning.bad_field",
            "hyperparameters.learning_rate_multiplier",
        ),
        (
            {"hyperparameters": {}, "method": {"type": "supervised", "supervised": {"hyperparameters": {}}}},
            "tuning.bad_field",
            "hyperparameters",
        ),
        ({"suffix": "a b"}, "tuning.bad_field", "suffix"),
        ({"seed": -1}, "tuning.bad_field", "seed"),
        ({"seed": "7"}, "tuning.bad_field", "seed"),
        ({"metadata": {"max_sats": "0"}}, "tuning.bad_field", "metadata.max_sats"),
        ({"metadata": {"a": 1}}, "tuning.bad_field", "metadata.a"),
        ({"service_tier": "flex"}, "tuning.bad_field", "service_tier"),
        ({"model": "gpt-4o-mini"}, "tuning.no_model", "model"),
        ({"model": "ft:tiny:x:000000000000"}, "tuning.not_found", "fine_tuning_job_id"),
        ({"training_file": "file-nothing"}, "file.not_found", "training_file"),
        ({"validation_file": "file-nothing"}, "file.not_found", "validation_file"),
        ({"metadata": {"max_sats": "1"}}, "budget.below_plan", "metadata.max_sats"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_its_name(
    offering: Stand, anna: httpx.AsyncClient, body: dict[str, Any], code: str, param: str
) -> None:
    answer = await create(anna, None, **{"training_file": await uploaded(anna), **body})
    assert error(answer) == (404 if code.endswith("not_found") else 400, code, param)
    assert (await anna.get(JOBS)).json()["data"] == []
    assert (await anna.get("/api/v1/wallet/balance")).json()["held_msat"] == 0


async def test_without_sats_a_job_is_refused_with_what_is_missing(offering: Stand) -> None:
    poor = await offering.party("poor000000000000", sats=1)
    answer = await create(poor, training_file=await uploaded(poor))
    assert error(answer)[:2] == (402, "wallet.below_plan")
    assert "wallet deposit" in answer.json()["error"]["message"]


async def test_another_ones_files_jobs_and_models_are_as_unknown_as_none(
    offering: Stand, anna: httpx.AsyncClient, bert: httpx.AsyncClient
) -> None:
    train = await uploaded(anna)
    job = (await create(anna, training_file=train, suffix="x")).json()["id"]
    assert error(await create(bert, training_file=train)) == (404, "file.not_found", "training_file")
    model = f"ft:tiny:x:{job.removeprefix('ftjob-')}"
    for method, path in (
        *[("GET", f"/v1/files/{train}"), ("GET", f"/v1/files/{train}/content"), ("DELETE", f"/v1/files/{train}")],
        *[("GET", f"{JOBS}/{job}"), ("GET", f"{JOBS}/{job}/events"), ("GET", f"{JOBS}/{job}/checkpoints")],
        *[("POST", f"{JOBS}/{job}/{verb}") for verb in ("cancel", "pause", "resume")],
        *[("GET", f"/v1/models/{model}"), ("DELETE", f"/v1/models/{model}")],
        *[("GET", f"/v1/files/file-{job.removeprefix('ftjob-')}-{kind}/content") for kind in ("model", "metrics")],
    ):
        assert (await bert.request(method, path)).status_code == 404, path
    for path in ("/v1/files", JOBS):
        assert (await bert.get(path)).json()["data"] == []
        assert error(await bert.get(path, params={"after": train}))[:2] == (400, "api.bad_cursor")
    assert (await anna.get(f"{JOBS}/{job}")).json()["status"] == "validating_files"


@pytest.mark.parametrize("after", ["ftevent-", "ftevent-x", "7", "ftevent--1", "ftevent-" + "9" * 30, "ftevent-７"])
async def test_a_forged_cursor_of_events_is_refused(offering: Stand, anna: httpx.AsyncClient, after: str) -> None:
    job = (await create(anna, training_file=await uploaded(anna))).json()["id"]
    assert error(await anna.get(f"{JOBS}/{job}/events", params={"after": after}))[1] == "api.bad_cursor"


async def test_a_job_over_grpc_is_none_of_these_clients(offering: Stand, anna: httpx.AsyncClient) -> None:
    job = (await create(anna, training_file=await uploaded(anna))).json()["id"].removeprefix("ftjob-")

    def forge(tx: Transaction) -> None:
        row = tx.get(Job, job)
        assert row is not None
        tx.insert(replace(row, id="abcdefabcdef", submission_id="ft-forged-by-its-owner"))

    await offering.store.write(forge)
    assert [each["id"] for each in (await anna.get(JOBS)).json()["data"]] == [f"ftjob-{job}"]
    assert error(await anna.get(f"{JOBS}/ftjob-abcdefabcdef"))[0] == 404


async def test_an_ended_job_gives_its_metrics_and_checkpoints_to_go_on_from(
    offering: Stand, anna: httpx.AsyncClient
) -> None:
    job = (await create(anna, training_file=await uploaded(anna), suffix="x")).json()["id"].removeprefix("ftjob-")

    def end(tx: Transaction) -> None:
        row = tx.get(Job, job)
        assert row is not None
        tx.put(replace(row, state=JobState.SUCCEEDED, ended_ms=offering.clock.now_ms()))
        for number, loss in ((1, 2.5), (2, 1.25)):
            tx.put(
                Round(
                    job_id=job,
                    stage="tune",
                    number=number,
                    kind="learn",
                    phase="apply",
                    state=RoundState.MERGED,
                    train_loss=loss,
                    started_ms=1,
                    ended_ms=number * 1000,
                )
            )

    await offering.store.write(end)
    shown = (await anna.get(f"{JOBS}/ftjob-{job}")).json()
    assert (shown["status"], shown["result_files"]) == ("succeeded", [f"file-{job}-metrics"])
    text = (await anna.get(f"/v1/files/file-{job}-metrics/content")).text.splitlines()
    assert text[0] == "step,round,train_loss,valid_loss" and [line.split(",")[2] for line in text[1:]] == [
        "2.5",
        "1.25",
    ]
    page = (await anna.get(f"{JOBS}/ftjob-{job}/checkpoints", params={"limit": 1})).json()
    assert page["has_more"] and page["data"][0]["fine_tuned_model_checkpoint"] == f"ft:tiny:x:{job}:ckpt-2"
    refused = await create(anna, training_file=await uploaded(anna), model=f"ft:tiny:x:{job}:ckpt-2")
    assert error(refused)[1] == "continue.no_round"
    assert error(await anna.delete(f"/v1/files/file-{job}-metrics"))[:2] == (409, "file.is_result")


async def test_models_are_the_offered_ones_and_a_base_is_not_deleted(offering: Stand, anna: httpx.AsyncClient) -> None:
    assert [each["id"] for each in (await anna.get("/v1/models")).json()["data"]] == ["tiny"]
    assert (await anna.get("/v1/models/tiny")).json()["owned_by"] == "operator"
    assert error(await anna.delete("/v1/models/tiny"))[1] == "model.not_yours"
    assert error(await anna.get("/v1/models/gpt-4"))[0] == 404
    assert error(await anna.post("/v1/chat/completions", json={}))[:2] == (404, "api.no_route")


async def test_a_revoked_owner_is_told_in_the_words_of_this_face(stand: Stand, anna: httpx.AsyncClient) -> None:
    row = await stand.store.read(lambda tx: tx.find(Party))
    await stand.store.write(lambda tx: tx.put(replace(row[0], revoked=True)))
    answer = await anna.get("/v1/models")
    assert error(answer) == (403, "auth.revoked", None) and answer.json()["error"]["type"] == "permission_error"
    assert (await stand.client().get("/v1/models")).json()["error"]["type"] == "authentication_error"


# ---- what auto means ----------------------------------------------------------------------------------------------


def asked(**hyperparameters: object) -> Asked:
    return Asked.read({"model": "m", "training_file": "f", "hyperparameters": hyperparameters})


@pytest.mark.parametrize(
    ("count", "batch", "epochs"), [(1, 1, 10), (10, 1, 5), (40, 5, 7), (120, 8, 4), (10_000, 8, 3)]
)
def test_few_rows_get_small_batches_and_more_passes(count: int, batch: int, epochs: int) -> None:
    frozen = tuning.frozen_of(asked(), count)
    assert (frozen.batch_size, frozen.n_epochs) == (batch, epochs)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 59, 60, 200, 1_000, 77_777, 10**7])
@pytest.mark.parametrize("workers", [0, 1, 3, 100])
def test_a_plan_takes_about_the_steps_that_were_asked_for(steps: int, workers: int) -> None:
    plan = tuning.plan_of(steps, workers)
    taken = plan.rounds * plan.shards_per_round * plan.inner_steps
    assert abs(taken - steps) <= max(0.25 * steps, 1)
    assert plan.shards_per_round <= max(workers, 1)
