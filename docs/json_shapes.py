"""The shape of every `--json` output of the three commands, as pydantic models: docs/reference/schemas/ is made of it.

A contract: keys may be added and are never renamed. `generate` writes the schemas; the tests check what the commands
really print against these models, strictly, so that no key is undocumented.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from json_feedback import (
    FeedbackFile,
    FeedbackJudged,
    FeedbackProgress,
    FeedbackRatings,
    FeedbackReport,
    Samples,
    Sitting,
)
from json_jobs import (
    Downloads,
    Error,
    Events,
    Job,
    JobList,
    JobTemplate,
    JobWhy,
    LogLine,
    Problem,
    Report,
    Shape,
    Span,
    Submitted,
    SubmittedQuote,
    ToppedUp,
    Valid,
    WatchLine,
    Why,
)
from pydantic import BaseModel, Field, RootModel

# ---- data and plans -------------------------------------------------------------------------------------------------


class Source(Shape):
    name: str
    files: int
    format: str | None
    rows: int
    weight: float
    reads: float
    tokens: int


class Reason(Shape):
    code: str
    sentence: str
    fix: str


class Sufficiency(Shape):
    verdict: str
    reasons: list[Reason]


class Packing(Shape):
    layout: str
    batch_size: int
    rows: int
    tokens: int
    padded_tokens: int
    padding: float
    sequences: int
    packed_tokens: int
    gap: float
    rows_a_sequence: float


class Piece(Shape):
    text: str
    loss: bool


class PreviewRow(Shape):
    file: str
    line: int
    pieces: list[Piece]


class Bucket(Shape):
    up_to: int
    rows: int


class DataCheck(Shape):
    format: str | None
    rows: int
    tokens: int
    loss_tokens: int
    tokens_estimated: bool
    max_length: int
    errors: list[Problem]
    error_count: int
    warnings: list[Problem]
    verdict: str
    reasons: list[str]
    truncated_rows: int
    split_rows: int
    dropped_rows: int
    all_masked_rows: int
    duplicate_rows: int
    eval_rows: int
    eval_duplicates: int
    near_duplicates: int
    sources: list[Source]
    sufficiency: Sufficiency | None
    packing: Packing | None
    histogram: list[Bucket]
    preview: list[PreviewRow]


class PhasePrice(Shape):
    stage: str
    phase: str
    rounds: int
    shards: int
    copies: int
    work_units: int
    price_msat: int
    fee_msat: int
    total_msat: int
    reserve_msat: int


class Option(Shape):
    method: str
    closed: str | None
    trained_params: int
    trainable_share: float
    memory_bytes: int
    upload_bytes_per_shard: int
    download_bytes_per_shard: int
    estimate_msat: int
    reserve_msat: int


class MethodChoice(Shape):
    chosen: str
    factors: dict[str, str]
    options: list[Option]


class Auto(Shape):
    key: str
    value: Any
    why: str


class PlannedStage(Shape):
    name: str
    recipe: str
    rows: int
    tokens: int
    eval_rows: int | None
    run_params: int
    trained_params: int
    input_bytes: int
    format: str | None
    sources: list[Source]
    sufficiency: Sufficiency | None
    packing: Packing | None
    run_if: dict[str, Any] | None
    continue_from: str | None
    auto: list[Auto]
    method: MethodChoice | None


class Plan(SubmittedQuote):
    name: str
    estimated_seconds: Span
    upload_bytes_per_shard: int
    download_bytes_per_shard: int
    msat_per_tera_unit: int
    minimum_shard_msat: int
    fee_basis_points: int
    phases: list[PhasePrice]
    detected_format: str
    rows: int
    tokens: int
    budget_msat: int
    available_msat: int
    warnings: list[Why]
    stages: list[PlannedStage]


# ---- money, settings, artifacts -------------------------------------------------------------------------------------


class Balance(Shape):
    available_msat: int
    held_msat: int
    paid_out_msat: int
    earned_msat: int
    asset: Literal["simulated", "bitcoin"]


class Deposited(Shape):
    id: str
    msat: int
    invoice: str
    payment_hash: str
    state: str
    expires_unix_ms: int
    simulated: bool
    balance: Balance


class Withdrawal(Shape):
    id: str
    msat: int
    fee_limit_msat: int
    address: str
    state: str
    why: Why | None
    payment_hash: str | None
    preimage: str | None
    simulated: bool
    created_unix_ms: int


class Transfer(Shape):
    sequence: int
    id: str
    at_unix_ms: int
    msat: int
    kind: str
    state: str
    reference: str


class History(Shape):
    transfers: list[Transfer]


class LoggedIn(Shape):
    party_id: str
    join: str
    config: str


class Begun(Shape):
    party_id: str
    join: str
    balance: Balance


class Demo(Shape):
    running: bool
    join: str | None
    web: str | None
    folder: str
    coordinator_pid: int | None
    worker_pid: int | None


class Setting(Shape):
    key: str
    value: str
    origin: str


class Settings(Shape):
    settings: list[Setting]


class Artifact(Shape):
    id: str
    kind: str
    bytes: int
    created_unix_ms: int
    kept_until_unix_ms: int
    why: Why


class Artifacts(RootModel[list[Artifact]]):
    """Everything that the coordinator keeps for you."""


class Deleted(Shape):
    id: str


class ApiKey(Shape):
    id: str
    name: str
    created_unix_ms: int
    last_used_unix_ms: int
    expires_unix_ms: int
    revoked: bool


class NewApiKey(ApiKey):
    """With the secret, which is shown this once."""

    key: str


class ApiKeys(RootModel[list[ApiKey]]):
    """Newest first."""


class ServeCheck(BaseModel):
    """That it loads, what it answered, and where it may be served."""

    loads: bool
    folder: str
    kind: str
    base: str | None
    model_type: str
    architecture: str
    loaded: dict[str, Any]
    engines: list[dict[str, Any]]
    merged: dict[str, Any] | None


# ---- the other two commands -----------------------------------------------------------------------------------------


class Earned(Shape):
    paid: int
    pending: int
    held: int


class Sandbox(Shape):
    kind: str
    lacks: list[str]


class WorkerStatus(Shape):
    state: str
    why: Why | None
    shard: str | None
    recipe: str
    phase: str
    price_msat: int
    progress: float | None
    step: str | None
    loss: float | None
    earned_msat: Earned
    worker_id: str
    device: str
    coordinator: str
    shards_done: int
    shards_failed: int
    sandbox: Sandbox


class AboutWhy(Why):
    about: str


class WorkerWhy(Shape):
    state: str
    reasons: list[AboutWhy]


class Finding(Why):
    check: str
    health: str


class Doctor(Shape):
    ok: bool
    checks: list[Finding]


class EarnedShard(Shape):
    id: str
    time: str
    at_unix_ms: int
    kind: str
    state: str
    word: str
    msat: int
    payment_hash: str
    why: Why | None


class Payment(Shape):
    id: str
    time: str
    at_unix_ms: int
    state: str
    msat: int
    payment_hash: str
    why: Why | None


class Earnings(Shape):
    from_: str = Field(alias="from")
    asset: str
    earned_msat: Earned
    #: null in what this machine's book alone knows
    paid_out_msat: int | None
    available_msat: int | None
    listed_paid_msat: int
    shards: list[EarnedShard]
    payments: list[Payment]


class Rates(Shape):
    msat_per_tera_unit: int
    minimum_msat: int
    asset: str
    from_: Literal["coordinator", "default"] = Field(alias="from")


class Measured(Shape):
    kind: str
    recipe: str
    preset: str
    parameters: int
    tokens_per_s: float | None
    msat_per_hour: int | None
    watts: float | None
    watts_measured: bool
    power_msat_per_hour: int | None
    net_msat_per_hour: int | None
    why: Why | None


class Bench(Shape):
    device: str
    device_name: str
    torch: str
    sandbox: str
    at_unix_ms: int
    shard_tokens: int
    rates: Rates
    results: list[Measured]


class Service(Shape):
    installed: bool
    #: these only where it is installed
    path: str = ""
    enabled: str = ""
    active: str = ""


class LedgerCheck(Shape):
    balanced: bool
    sum_msat: int
    violations: list[Any]
    transfers: int
    accounts: int


class WorkerReliability(Shape):
    score: float | None
    accepted: int
    counted: int


class WorkerPace(Shape):
    phase: str
    shards: int
    seconds: float
    tokens_per_s: float
    units_per_s: int


class PaidOut(Shape):
    id: str
    msat: int
    state: str
    address: str
    payment_hash: str | None
    updated_unix_ms: int
    why: Why | None


class KeyEarnings(Shape):
    earned_msat: int
    paid_out_msat: int
    on_the_way_msat: int
    available_msat: int
    #: of its latest attempts
    donated_msat: int
    address: str
    #: in the ledger
    account: str
    payouts: list[PaidOut]


class WorkerKnown(Shape):
    """Of a worker, or of somebody who judges."""

    id: str
    name: str
    standing: str
    reference: bool
    created_unix_ms: int
    last_seen_unix_ms: int
    #: by how they ended
    attempts: dict[str, int]
    reliability: WorkerReliability
    paces: list[WorkerPace]
    earnings: KeyEarnings


#: command -> the shape of what it prints with --json
SHAPES: dict[str, type[BaseModel]] = {
    "shardwork (any failure)": Error,
    "shardwork init": Begun,
    "shardwork login": LoggedIn,
    "shardwork demo start": Demo,
    "shardwork demo status": Demo,
    "shardwork demo stop": Demo,
    "shardwork config show": Settings,
    "shardwork wallet balance": Balance,
    "shardwork wallet deposit": Deposited,
    "shardwork wallet history": History,
    "shardwork wallet withdraw": Withdrawal,
    "shardwork wallet cancel": Withdrawal,
    "shardwork data check": DataCheck,
    "shardwork feedback ratings": FeedbackRatings,
    "shardwork feedback report": FeedbackReport,
    "shardwork feedback export": FeedbackFile,
    "shardwork feedback import": FeedbackFile,
    "shardwork feedback judge": FeedbackJudged,
    "shardwork feedback progress": FeedbackProgress,
    "shardwork feedback close": Job,
    "shardwork feedback vote": Sitting,
    "shardwork job init": JobTemplate,
    "shardwork job validate": Valid,
    "shardwork job plan": Plan,
    "shardwork job submit": Submitted,
    "shardwork job list": JobList,
    "shardwork job show": Job,
    "shardwork job watch": WatchLine,
    "shardwork job events": Events,
    "shardwork job logs": LogLine,
    "shardwork job why": JobWhy,
    "shardwork job pause": Job,
    "shardwork job resume": Job,
    "shardwork job cancel": Job,
    "shardwork job topup": ToppedUp,
    "shardwork job report": Report,
    "shardwork job samples": Samples,
    "shardwork job download": Downloads,
    "shardwork job serve-check": ServeCheck,
    "shardwork artifact list": Artifacts,
    "shardwork artifact delete": Deleted,
    "shardwork api-key create": NewApiKey,
    "shardwork api-key list": ApiKeys,
    "shardwork api-key revoke": ApiKey,
    "shardwork-worker status": WorkerStatus,
    "shardwork-worker why": WorkerWhy,
    "shardwork-worker doctor": Doctor,
    "shardwork-worker earnings": Earnings,
    "shardwork-worker bench": Bench,
    "shardwork-worker service status": Service,
    "shardwork-coordinator ledger check": LedgerCheck,
    "shardwork-coordinator worker show": WorkerKnown,
}


def file_name(command: str) -> str:
    return "-".join(command.replace("(", "").replace(")", "").split()) + ".json"


def schema(command: str) -> str:
    """The JSON Schema of a command's output. Keys may be added to any object, so readers must let others pass."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **SHAPES[command].model_json_schema()}
    made["title"] = f"{command} --json"
    return json.dumps(_open(made), indent=2, sort_keys=True) + "\n"


def _open(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _open(each) for key, each in value.items() if not (key == "additionalProperties" and each is False)
        }
    return [_open(each) for each in value] if isinstance(value, list) else value


def index() -> str:
    """The page that lists them."""
    rows = [f"| `{command}` | [{file_name(command)}](schemas/{file_name(command)}) |" for command in SHAPES]
    lead = (
        "One object on stdout (JSON Lines where a command follows something); errors are one object on stderr. Keys "
        "are never renamed; more may be added, so let unknown ones pass. Money is integer millisatoshi, times are Unix "
        "milliseconds."
    )
    return f"# What `--json` prints\n\n{lead}\n\n| command | JSON Schema |\n|---|---|\n" + "\n".join(rows) + "\n"
