"""POST /v1/fine_tuning/jobs: a client's words become a job that is measured, priced, capped and submitted.

Whoever asks again, because an answer was lost, gets the same job, also when it has ended meanwhile: its id follows from
the wishes and the seed, and who tries again gets what the first try settled. So no retry pays twice.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass

from shardwork.errors import Conflict, InvalidInput, NotEnoughFunds
from shardwork.ids import job_id as derive_job_id
from shardwork.jobs.spec import BudgetSection, JobSpec
from shardwork.money import MSAT_PER_SAT, Msat, ceil_sats, show
from shardwork.problem import suggest
from shardwork.v1 import jobs_pb2, types_pb2

from ...hub import offered
from ...money import ledger
from ...money.movements import user_account
from ...records import Answer, ApiFile, Job, JobState, OfferedModel
from ...rpc.auth import Caller
from ...rpc.jobs import quote_job, submit_job
from ...store.base import Transaction
from .. import submitting
from ..measuring import Measured
from ..routes import Call
from . import files, kept, tuning
from .asked import Asked, wrong
from .kept import Wishes
from .tuning import STAGE, Base

#: a first try is remembered so long
RETRY_MS = 15 * 60 * 1000
#: runs of the same wishes, one after the other failed or was cancelled
MOST_RUNS = 1_000
#: no job costs more; a first quote is asked for with it
ALL_SATS = 21_000_000 * 100_000_000


@dataclass(frozen=True, slots=True)
class _Inputs:
    train: ApiFile
    valid: ApiFile | None

    def ids(self, base: OfferedModel) -> dict[str, str]:
        found = {f"{STAGE}.base_model": base.artifact_id, f"{STAGE}.data": self.train.artifact_id}
        return {**found, **({f"{STAGE}.eval_data": self.valid.artifact_id} if self.valid else {})}


@dataclass(frozen=True, slots=True)
class _First:
    """What a first try settled, for the tries after it."""

    seed: int
    submission: str


async def create(call: Call) -> str:
    """The id of the job. Raises what `Asked.read` raises, NotFound of files and models, Unfit of rows, InvalidInput
    "budget.below_plan", NotEnoughFunds "wallet.below_plan" and Conflict "tuning.key_reused"."""
    asked = Asked.read(call.asked)
    first = await _first(call, asked)
    async with call.desk.creating.of(f"{call.caller.party_id} {first.submission}"):
        return await _known(call, first.submission) or await _submit(call, asked, first)


async def _submit(call: Call, asked: Asked, first: _First) -> str:
    caller, desk, submission = call.caller, call.desk, first.submission
    base, row = await base_of(call, asked.model)
    inputs = await _files(call, asked)
    job_id = str(derive_job_id(caller.party_id, submission))
    name = asked.suffix or f"fine-tune {row.name}"
    spec = tuning.first_spec(asked, base, name=name, max_sats=asked.max_sats or ALL_SATS)
    ids = inputs.ids(row)
    measured = await desk.measurer.measure(spec, ids, caller.party_id)
    facts = measured.facts[STAGE]
    workers = len(desk.engine.links.accepting())
    spec, frozen = tuning.planned(JobSpec.model_validate_json(measured.spec_json), facts, asked, workers)
    spec = await _capped(call, spec, measured, asked)
    wishes = Wishes(
        model=asked.model,
        training_file=asked.training_file,
        validation_file=asked.validation_file,
        suffix=asked.suffix,
        seed=first.seed,
        metadata=dict(asked.metadata),
        n_epochs=frozen.n_epochs,
        batch_size=frozen.batch_size,
        learning_rate_multiplier=frozen.learning_rate_multiplier,
    )
    answer = wishes.to_row(job_id, asked.digest(first.seed), desk.now_ms)
    await desk.commit(lambda tx: tx.put(answer))
    request = jobs_pb2.SubmitJobRequest(
        submission_id=submission,
        spec_json=spec.canonical_json(),
        facts=submitting.wire_facts(measured),
        inputs=[types_pb2.NamedArtifact(name=name, artifact_id=one) for name, one in ids.items()],
        max_msat=spec.budget.max_sats * MSAT_PER_SAT,
    )
    try:
        return (await submit_job(request, caller, desk.jobs)).job_id
    except Conflict as error:
        # a retry that reached another coordinator was faster, and planned for other workers
        if error.code != "job.submission_reused":
            raise
        return job_id


async def _capped(call: Call, spec: JobSpec, measured: Measured, asked: Asked) -> JobSpec:
    """With the cap that the client named, or what it may cost at most, which its owner must have."""
    request = jobs_pb2.QuoteJobRequest(spec_json=spec.canonical_json(), facts=submitting.wire_facts(measured))
    reserve = Msat((await quote_job(request, call.caller, call.desk.jobs)).quote.reserve_msat)
    cap = asked.max_sats or ceil_sats(reserve)
    if cap * MSAT_PER_SAT < reserve:
        raise InvalidInput(
            "budget.below_plan",
            f"The job may cost up to {show(reserve)}, and metadata.max_sats is {cap:,}.",
            next_step=f"Allow {ceil_sats(reserve):,} sats, or take fewer epochs.",
            param="metadata.max_sats",
        )
    owner = call.caller.party_id
    balance = await call.desk.engine.store.read(lambda tx: ledger.available(tx, user_account(owner)))
    if balance < reserve:
        raise NotEnoughFunds(
            "wallet.below_plan",
            f"Your balance is {show(Msat(balance))}, and the job may cost up to {show(reserve)}.",
            next_step=f"Put the rest in: shardwork wallet deposit {ceil_sats(Msat(reserve - balance))}",
        )
    return spec.model_copy(update={"budget": BudgetSection(max_sats=cap)})


async def _files(call: Call, asked: Asked) -> _Inputs:
    train = await files.own(call, asked.training_file, "training_file")
    if asked.validation_file is None:
        return _Inputs(train, None)
    if asked.validation_file == asked.training_file:
        raise wrong("validation_file", "it is the training file.", "Hold other rows back, or leave it out.")
    return _Inputs(train, await files.own(call, asked.validation_file, "validation_file"))


async def base_of(call: Call, named: str) -> tuple[Base, OfferedModel]:
    """What a model's name means: one that is offered, or where an earlier job of the caller's left off."""
    parts = named.split(":")
    is_own = parts[0] == "ft" and len(parts) in (4, 5)
    wanted = parts[1] if is_own else named

    def look(tx: Transaction) -> tuple[OfferedModel, str]:
        row = tx.get(OfferedModel, wanted)
        if row is None or row.withdrawn:
            known = [one.name for one in offered.every(tx)]
            raise InvalidInput(
                "tuning.no_model",
                f"There is no model {named[:80]!r} to tune.",
                next_step=suggest(wanted, known, what="models") if known else "This coordinator offers none.",
                param="model",
            )
        return row, _checkpoint(tx, parts, call.caller) if is_own else ""

    row, continues = await call.desk.engine.store.read(look)
    await call.desk.commit(offered.granted(f"offered:{row.name}", call.caller.party_id, call.desk.now_ms))
    has_template = bool(json.loads(row.facts_json).get("chat_template"))
    return Base(name=row.name, chat_template=has_template, continue_from=continues), row


def _checkpoint(tx: Transaction, parts: list[str], caller: Caller) -> str:
    """`JOB.stage.checkpoint` of "ft:base:suffix:job" or "…:ckpt-3". Raises NotFound, InvalidInput "tuning.no_model"."""
    job, _ = kept.own(tx, kept.job_name(parts[3]), caller)
    if len(parts) == 4:
        return f"{job.id}.{STAGE}.checkpoint"
    number = parts[4].removeprefix("ckpt-")
    if not (parts[4].startswith("ckpt-") and number.isascii() and number.isdecimal() and len(number) <= 6):
        raise InvalidInput(
            "tuning.no_model", "There is no such checkpoint.", next_step="List the job's checkpoints.", param="model"
        )
    return f"{job.id}.{STAGE}.checkpoint@{number}"


async def _known(call: Call, submission: str) -> str:
    """The id of the job of this submission; empty where there is none yet."""
    owner = call.caller.party_id
    found = await call.desk.engine.store.read(lambda tx: tx.find(Job, owner=owner, submission_id=submission))
    return found[0].id if found else ""


async def _first(call: Call, asked: Asked) -> _First:
    """Settled once for a first try and the tries after it, whatever became of the job meanwhile: a retry never pays.

    Tries belong together by the key that the client sends, or by the wishes where its library says that it tries again.
    """
    owner, wishes = call.caller.party_id, asked.digest(asked.seed)
    key = call.request.headers.get("idempotency-key", "")
    name = hashlib.sha256(key.encode()).hexdigest() if key else wishes
    name = f"fine-tuning-{'key' if key else 'first'}/{owner}/{name[:40]}"
    is_retry = call.request.headers.get("x-stainless-retry-count", "0") not in ("", "0")
    now_ms, drawn = call.desk.now_ms, secrets.randbits(31)

    def work(tx: Transaction) -> _First:
        known = tx.get(Answer, name)
        if known is not None and key and known.request_sha256 != wishes:
            raise Conflict(
                "tuning.key_reused", "This Idempotency-Key belongs to other wishes.", next_step="Send another key."
            )
        if known is not None and (key or (is_retry and now_ms - known.created_ms < RETRY_MS)):
            return _First(**json.loads(known.response))
        seed = asked.seed if asked.seed is not None else drawn
        made = _First(seed, _free(tx, owner, asked.digest(seed)))
        text = json.dumps(asdict(made)).encode()
        tx.put(Answer(id=name, request_sha256=wishes, response=text, created_ms=now_ms))
        return made

    return await call.desk.commit(work)


def _free(tx: Transaction, owner: str, digest: str) -> str:
    """The submission id of the job of these wishes that runs or succeeded, or of one that may begin."""
    for run in range(MOST_RUNS):
        submission = f"{kept.SUBMISSION}{digest[:40]}-{run}"
        known = tx.find(Job, owner=owner, submission_id=submission)
        if not known or known[0].state not in (JobState.FAILED, JobState.CANCELLED):
            return submission
    raise InvalidInput("tuning.bad_field", "It failed too often.", next_step="Take another seed.", param="seed")
