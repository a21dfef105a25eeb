"""A requester that lies or overdoes it, over the wire: refused with a reason before a msat moves, or refunded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from shardwork.artifact import describe_folder
from shardwork.errors import Internal, LimitExceeded
from shardwork.identity.role import Role
from shardwork.jobs.spec import BudgetSection, JobSpec, PlanSection, StageSpec, TrustSection
from shardwork.transfer import upload_folder
from shardwork.v1 import jobs_pb2, types_pb2
from shardwork_coordinator.records import Artifact, Job, Transfer
from shardwork_coordinator.rpc import jobs as jobs_rpc
from shardwork_coordinator.store.base import Transaction

from ..client import tiny_model
from .market import TEXT, Market, Party, count_spec
from .test_auth_matrix import call, methods

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRUST = TrustSection(data_class="public")
PARAMS = tiny_model.num_params()
RANK = 2
LORA = RANK * tiny_model.LORA_PARAMS_PER_RANK
#: name, recipe, base_model, data, eval_data
StageText = tuple[str, str, str | None, list[str], list[str]]


def learning_spec(**changes: Any) -> JobSpec:
    stage: dict[str, Any] = {
        "name": "tune",
        "recipe": "sft",
        "base_model": "./tiny",
        "data": ["train.jsonl"],
        "params": {"method": "lora", "rank": RANK, "max_length": 64},
        "plan": PlanSection(rounds=1, shards_per_round=1, inner_steps=1),
    }
    return JobSpec(
        name="tutor", stages=[StageSpec(**{**stage, **changes})], trust=TRUST, budget=BudgetSection(max_sats=90)
    )


def facts(run: int = PARAMS, trained: int = LORA, *, stage: str = "tune", **more: int) -> jobs_pb2.StageFacts:
    return jobs_pb2.StageFacts(stage=stage, rows=40, tokens=400, run_params=run, trained_params=trained, **more)


async def uploaded(requester: Party) -> dict[str, str]:
    """The tiny model and its rows, in the store."""
    folder = requester.market.folder / "sent" / requester.id
    base = tiny_model.write_model(folder / "tiny")
    (base / "secret-notes.txt").unlink()
    data = folder / "data"
    data.mkdir()
    rows = [{"prompt": f"What is {n}?", "completion": f" It is {n}."} for n in range(40)]
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {"tune.base_model": base, "tune.data": data}
    return {name: (await upload_folder(requester.session, path, purpose="input")).id for name, path in found.items()}


def submission(
    spec: JobSpec, inputs: dict[str, str], *said: jobs_pb2.StageFacts, submission_id: str = "submission-1"
) -> jobs_pb2.SubmitJobRequest:
    named = [types_pb2.NamedArtifact(name=name, artifact_id=artifact) for name, artifact in inputs.items()]
    return jobs_pb2.SubmitJobRequest(
        submission_id=submission_id, spec_json=spec.canonical_json(), facts=said, inputs=named
    )


async def assert_refused(requester: Party, request: jobs_pb2.SubmitJobRequest, code: str) -> None:
    before = await requester.market.state()
    error = await requester.refused(requester.session.jobs.SubmitJob, request)
    assert error.code == code, error
    assert await requester.market.state() == before


async def ending(place: Market, job_id: str) -> Job:
    def look(tx: Transaction) -> Job | None:
        job = tx.get(Job, job_id)
        return job if job is not None and job.ended_ms else None

    return await place.until(look)


# ---- facts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "trained", "stands"),
    [
        (PARAMS, LORA, True),
        (PARAMS - PARAMS // 200, LORA, True),
        (PARAMS * 3, LORA * 3, True),
        (PARAMS - PARAMS // 50, LORA, False),
        (1, LORA, False),
        (PARAMS, 1, False),
    ],
)
async def test_a_model_declared_smaller_than_it_is_ends_its_job_with_a_full_refund(
    place: Market, run: int, trained: int, stands: bool
) -> None:
    requester = await place.party(Role.REQUESTER, sats=90)
    request = submission(learning_spec(), await uploaded(requester), facts(run, trained))
    job_id = (await requester.session.call(requester.session.jobs.SubmitJob, request)).job_id
    if stands:
        round_ = await place.until(lambda tx: (row := tx.get(Job, job_id)) and row.state == "running" and prepared(tx))
        assert round_
        return
    job = await ending(place, job_id)
    assert job.state == "failed"
    why = json.loads(job.why_json)
    assert why["code"] == "facts.under_declared", why
    refunds = await place.read(lambda tx: tx.find(Transfer, reference=job_id, reason="refund"))
    assert sum(one.msat for one in refunds) == job.budget_msat


async def test_text_declared_shorter_than_it_is_ends_its_job_before_anybody_counts_it(place: Market) -> None:
    requester = await place.party(Role.REQUESTER, sats=90)
    job = await ending(place, await requester.submit(input_bytes=5))
    why = json.loads(job.why_json)
    assert (why["code"], why["evidence"]["fact"]) == ("facts.under_declared", "input_bytes")
    refunds = await place.read(lambda tx: tx.find(Transfer, reference=job.id, reason="refund"))
    assert sum(one.msat for one in refunds) == job.budget_msat


async def test_rows_longer_than_the_model_end_their_job_before_a_worker_is_paid_to_refuse_them(place: Market) -> None:
    requester = await place.party(Role.REQUESTER, sats=90)
    spec = learning_spec()
    stage = spec.stages[0]
    too_long = stage.model_copy(update={"params": {**stage.params, "max_length": 100_000}})
    request = submission(spec.model_copy(update={"stages": [too_long]}), await uploaded(requester), facts())
    job = await ending(place, (await requester.session.call(requester.session.jobs.SubmitJob, request)).job_id)
    assert json.loads(job.why_json)["code"] == "model.max_length"


def prepared(tx: Transaction) -> bool:
    """The executor handed over the prepared rows and a shard waits."""
    from shardwork_coordinator.records import Shard

    return any(shard.phase == "init" and shard.state == "ready" for shard in tx.find(Shard))


async def test_a_base_that_holds_code_ends_its_job_without_a_word_of_the_coordinators_folders(place: Market) -> None:
    requester = await place.party(Role.REQUESTER, sats=90)
    inputs = await uploaded(requester)
    folder = place.folder / "sent" / requester.id / "tiny"
    (folder / "modeling.py").write_text("raise SystemExit")
    inputs["tune.base_model"] = (await upload_folder(requester.session, folder, purpose="input")).id
    request = submission(learning_spec(), inputs, facts())
    job_id = (await requester.session.call(requester.session.jobs.SubmitJob, request)).job_id
    job = await ending(place, job_id)
    assert json.loads(job.why_json)["code"] == "model.code"
    assert str(place.folder) not in job.why_json


async def test_facts_that_are_missing_or_absurd_are_refused_at_once(place: Market) -> None:
    requester = await place.party(Role.REQUESTER, sats=90)
    inputs, spec = await uploaded(requester), learning_spec()
    await assert_refused(requester, submission(spec, inputs), "facts.missing")
    await assert_refused(requester, submission(spec, inputs, facts(0, 0)), "facts.missing")
    await assert_refused(requester, submission(spec, inputs, facts(2**64 - 1)), "facts.too_large")
    await assert_refused(requester, submission(spec, inputs, facts(10**13, 10**13)), "full.too_large")
    await assert_refused(requester, submission(spec, inputs, facts(10**13, 10**9)), "budget.below_plan")
    crowd = [facts(stage=f"s{number}") for number in range(33)]
    await assert_refused(requester, submission(spec, inputs, *crowd), "job.too_many_facts")


# ---- others' artifacts ----------------------------------------------------------------------------------------------


async def test_no_job_reads_an_artifact_that_is_not_its_owners(place: Market) -> None:
    victim, thief = await place.party(Role.REQUESTER), await place.party(Role.REQUESTER, sats=90)
    inputs = await uploaded(thief)
    secret = await victim.upload({"secret.jsonl": '{"text": "mine"}\n'})
    stolen = {**inputs, "tune.data": secret}
    await assert_refused(thief, submission(learning_spec(), stolen, facts()), "job.input_missing")
    for name in ("tune.eval_data", "other.data", "tune.step", ""):
        smuggled = submission(learning_spec(), {**inputs, name: secret}, facts())
        await assert_refused(thief, smuggled, "job.unread_input")


async def test_a_digest_gives_nobody_the_content(place: Market) -> None:
    victim, thief = await place.party(Role.REQUESTER), await place.party(Role.REQUESTER)
    await victim.upload({"mine.txt": "mine"})
    folder = place.folder / "guess"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    known = describe_folder(folder)
    row = await place.read(lambda tx: tx.get(Artifact, known.id, thief.id))
    assert row is None
    assert (await thief.upload({"mine.txt": "mine"})) == known.id


# ---- specs ----------------------------------------------------------------------------------------------------------


def chain(*stages: StageText) -> JobSpec:
    made = [
        StageSpec(
            name=name,
            recipe=recipe,
            base_model=base,
            data=[*data],
            eval_data=[*held_out],
            params={"preset": "tiny-1m"} if recipe == "pretrain" and base is None else {},
        )
        for name, recipe, base, data, held_out in stages
    ]
    return JobSpec(name="chain", stages=made, trust=TRUST, budget=BudgetSection(max_sats=10**9))


PRE: StageText = ("pre", "pretrain", None, ["a.txt"], [])


@pytest.mark.parametrize(
    "spec",
    [
        chain(PRE, ("tune", "sft", "pre.checkpoint", ["a.jsonl"], [])),
        chain(PRE, ("tune", "sft", "pre.model", ["pre.model"], [])),
        chain(PRE, ("tune", "sft", "pre.model", ["a.jsonl"], ["pre.report"])),
        chain(PRE, ("tune", "sft", "pre.model", ["a.jsonl"], ["pre.rows"])),
        chain(("words", "count", None, ["a.txt"], []), ("tune", "sft", "words.report", ["a.jsonl"], [])),
        chain(PRE, ("one", "sft", "pre.model", ["a.jsonl"], []), ("two", "sft", "one.model", ["a.jsonl"], [])),
    ],
    ids=lambda spec: "/".join(stage.base_model or "-" for stage in spec.stages),
)
async def test_a_stage_reads_only_what_an_earlier_one_surely_makes(place: Market, spec: JobSpec) -> None:
    requester = await place.party(Role.REQUESTER)
    await assert_refused(requester, submission(spec, {}), "job.unusable_reference")


def raw(**changes: Any) -> str:
    return json.dumps({**json.loads(learning_spec().canonical_json()), **changes})


def raw_stage(**changes: Any) -> str:
    spec = json.loads(learning_spec().canonical_json())
    spec["stages"][0] |= changes
    return json.dumps(spec)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "job.bad_spec"),
        ("[]", "job.bad_spec"),
        ("{" * 5_000, "job.bad_spec"),
        ("x" * (1 << 20) + "x", "job.spec_too_large"),
        (raw(name="n" * 81), "job.bad_spec"),
        (raw(name="\x1b[2Jboo"), "job.bad_spec"),
        (raw(stages=[]), "job.bad_spec"),
        (raw(stages=json.loads(raw())["stages"] * 33), "job.bad_spec"),
        (raw(stages=json.loads(raw())["stages"] * 2), "job.bad_spec"),
        (raw_stage(base_model="later.model"), "job.bad_spec"),
        (raw_stage(recipe="r" * 100_000), "recipe.unknown"),
        (raw_stage(plan={"rounds": 10_001}), "job.bad_spec"),
        (raw_stage(plan={"rounds": -1}), "job.bad_spec"),
        (raw_stage(eval_fraction=float("nan")), "job.bad_spec"),
        *[
            (raw_stage(params={key: value}), "recipe.params")
            for key, value in (
                ("max_length", -64),
                ("max_length", 0),
                ("max_length", 10**30),
                ("micro_batch_size", 0),
                ("warmup_steps", -1),
                ("learning_rate", float("nan")),
                ("learning_rate", float("inf")),
                ("learning_rate", -1.0),
                ("weight_decay", -1.0),
                ("clip_norm", float("inf")),
                ("trust_remote_code", True),
                ("rank", 0),
            )
        ],
        (raw_stage(params={"warmup_steps": 0}).replace('"warmup_steps": 0', '"warmup_steps": 1' + "0" * 4_000), ""),
    ],
)
async def test_an_absurd_description_is_refused_with_a_reason(place: Market, text: str, code: str) -> None:
    requester = await place.party(Role.REQUESTER)
    for request, method in (
        (jobs_pb2.QuoteJobRequest(spec_json=text, facts=[facts()]), requester.session.jobs.QuoteJob),
        (
            jobs_pb2.SubmitJobRequest(submission_id="submission-1", spec_json=text, facts=[facts()]),
            requester.session.jobs.SubmitJob,
        ),
    ):
        error = await requester.refused(method, request)
        assert not isinstance(error, Internal), error
        assert code in ("", error.code), error


async def test_the_largest_plan_is_quoted_or_refused_while_others_are_answered(place: Market) -> None:
    requester, other = await place.party(Role.REQUESTER), await place.party(Role.REQUESTER)
    stage = json.loads(learning_spec().canonical_json())["stages"][0]
    plan = {"rounds": 10_000, "shards_per_round": 1_024, "inner_steps": 10_000}
    params = {"max_length": 2**20, "batch_size": 4096, "allow_large": True}
    stages = [{**stage, "name": f"s{number}", "plan": plan, "params": params} for number in range(32)]
    quote = jobs_pb2.QuoteJobRequest(
        spec_json=raw(stages=stages), facts=[facts(10**13, 10**13, stage=f"s{n}") for n in range(32)]
    )
    asked = asyncio.create_task(requester.refused(requester.session.jobs.QuoteJob, quote))
    waits: list[float] = []
    while not asked.done():
        started = asyncio.get_running_loop().time()
        await other.session.call(other.session.jobs.ListJobs, jobs_pb2.ListJobsRequest())
        waits.append(asyncio.get_running_loop().time() - started)
    assert (await asked).code in ("plan.too_large", "coordinator.timeout")
    assert sorted(waits)[len(waits) // 2] < 1.0


async def test_a_submission_id_names_one_job_and_one_description(place: Market) -> None:
    requester, other = await place.party(Role.REQUESTER, sats=100), await place.party(Role.REQUESTER, sats=100)
    await requester.upload({"text.txt": TEXT})
    first, again = await asyncio.gather(requester.submit(), requester.submit())
    assert first == again
    assert await other.submit() != first
    changed = submission(count_spec(parts=2), {})
    await assert_refused(requester, changed, "job.submission_reused")
    for short in ("", "x" * 65):
        await assert_refused(requester, submission(count_spec(), {}, submission_id=short), "job.bad_submission_id")


async def test_more_than_the_balance_or_the_cap_is_not_escrowed(place: Market) -> None:
    poor = await place.party(Role.REQUESTER, sats=1)
    data = {"words.data": await poor.upload({"text.txt": "one\n"})}
    await assert_refused(poor, submission(count_spec(parts=8), data), "ledger.insufficient")
    await assert_refused(poor, submission(count_spec(parts=8, sats=1), data), "budget.below_plan")
    capped = submission(count_spec(), data)
    capped.max_msat = 1
    await assert_refused(poor, capped, "budget.below_plan")


# ---- floods and fields at their ends --------------------------------------------------------------------------------


async def test_watch_streams_of_one_party_are_counted(place: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_rpc, "MOST_WATCHES", 3)
    requester, other = await place.party(Role.REQUESTER, sats=100), await place.party(Role.REQUESTER, sats=100)
    job, others = await requester.submit(), await other.submit()
    watch = jobs_pb2.WatchJobRequest(job_id=job)
    open_ones = [requester.session.jobs.WatchJob(watch, metadata=await requester.session.metadata()) for _ in range(3)]
    for one in open_ones:
        assert (await anext(aiter(one))).job.id == job
    ((_, token),) = await requester.session.metadata()
    outcome = await call(requester.session.channel, methods()["JobsService.WatchJob"], token, watch)
    assert isinstance(outcome.error, LimitExceeded) and outcome.error.code == "job.too_many_watches"
    mine = other.session.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=others), metadata=await other.session.metadata())
    assert (await anext(aiter(mine))).job.id == others
    for one in (*open_ones, mine):
        one.cancel()


def extremes(field: Any) -> list[Any]:
    unsigned = {FieldDescriptor.TYPE_UINT64: 2**64 - 1, FieldDescriptor.TYPE_UINT32: 2**32 - 1}
    if field.type in unsigned:
        return [unsigned[field.type]]
    if field.type == FieldDescriptor.TYPE_INT64:
        return [2**63 - 1, -(2**63)]
    if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return [float("nan"), float("inf"), -1.0]
    if field.type == FieldDescriptor.TYPE_STRING:
        return ["\0", "²", "9" * 30, "x" * 10_000, "../../etc/passwd", "ab" * 32, "a#0.1", "-1", "'; DROP TABLE job"]
    if field.type == FieldDescriptor.TYPE_BYTES:
        return [b"\xff" * 64, bytes(32), b"x" * 100_000]
    return [True] if field.type == FieldDescriptor.TYPE_BOOL else []


def bent(message: Message, filled: Callable[[Message], None]) -> list[Message]:
    """Copies of the message with one field each, at any depth, at one of its ends."""
    found: list[Message] = []
    fields: list[Any] = list(message.DESCRIPTOR.fields)
    for field in fields:
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                continue
            for inner in bent(GetMessageClass(field.message_type)(), lambda _: None):
                outer = type(message)()
                filled(outer)
                value = getattr(outer, field.name)
                (value.add() if field.is_repeated else value).CopyFrom(inner)
                found.append(outer)
            continue
        for value in extremes(field):
            outer = type(message)()
            filled(outer)
            if field.is_repeated:
                getattr(outer, field.name).append(value)
            else:
                setattr(outer, field.name, value)
            found.append(outer)
    return found


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ANNOTATOR])  # who calls over HTTP only
async def test_no_field_at_its_end_is_an_internal_error_in_any_call(place: Market, role: Role) -> None:
    party = await place.operator() if role is Role.OPERATOR else await place.party(role, sats=0)
    job = await (await place.party(Role.REQUESTER, sats=100)).submit()
    ((_, token),) = await party.session.metadata()
    wrong: list[tuple[str, str, str]] = []
    sent = 0
    for name, method in methods().items():
        if name in ("WorkService.Attach", "EnrolmentService.GetAuthority"):
            continue
        empty = GetMessageClass(method.input_type)()

        def with_job(message: Message) -> None:
            if "job_id" in message.DESCRIPTOR.fields_by_name:
                message.job_id = job  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

        if name == "JobsService.WatchJob" and role is Role.OPERATOR:
            # a job that the operator may see is followed for ever
            continue
        for request in bent(empty, with_job):
            outcome = await call(party.session.channel, method, token, request)
            sent += 1
            if isinstance(outcome.error, Internal) or outcome.status.name in ("UNKNOWN", "INTERNAL"):
                wrong.append((name, str(request)[:120], str(outcome.error)[:200]))
    assert sent > 100
    assert wrong == []
