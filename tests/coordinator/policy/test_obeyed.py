"""Rules of the house in a coordinator that serves: obeyed without a restart; what runs keeps its rates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shardwork.errors import Conflict, LimitExceeded
from shardwork.identity.role import Role
from shardwork.v1 import jobs_pb2, storage_pb2, wallet_pb2, work_pb2
from shardwork_coordinator import cli
from shardwork_coordinator.policy.changes import Wish, decide
from shardwork_coordinator.records import AuditEntry, Job

from ...contract.market import Market, market


@asynccontextmanager
async def ruled(folder: Path, **values: object) -> AsyncGenerator[Market, None]:
    async with market(folder) as found:
        await obey(found, **values)
        yield found


async def obey(found: Market, **values: object) -> None:
    settings = found.serving.house.settings
    for name, value in values.items():
        wish = Wish(name=name, value=str(value), reason="a test", actor="ada")
        await found.serving.engine.store.write(partial(decide, settings=settings, wish=wish, now_ms=1))
    await found.serving.house.refresh()


async def test_closed_intake_refuses_new_jobs_and_lets_the_running_ones_go_on(tmp_path: Path) -> None:
    async with market(tmp_path) as found:
        owner = await found.party(Role.REQUESTER, sats=1_000)
        job_id = await owner.submit()
        await obey(found, intake="closed")
        with pytest.raises(Conflict) as refused:
            await owner.submit(submission_id="submission-2")
        assert refused.value.code == "job.intake_closed" and refused.value.why.next_step
        # a retry of the first call is answered as it was
        assert await owner.submit() == job_id
        await obey(found, intake="open")
        assert await owner.submit(submission_id="submission-2") != job_id


async def test_a_running_job_keeps_its_rates_and_the_next_gets_the_new_ones(tmp_path: Path) -> None:
    async with market(tmp_path) as found:
        owner = await found.party(Role.REQUESTER, sats=1_000)
        first = await owner.submit()
        await obey(found, minimum_shard_msat=5_000, fee_basis_points=1_000)
        second = await owner.submit(submission_id="submission-2")
        rows = {job.id: job for job in await found.read(lambda tx: tx.find(Job))}
        rates = {name: json.loads(job.rates_json) for name, job in rows.items()}
        assert (rates[first]["minimum_msat"], rates[second]["minimum_msat"]) == (1_000, 5_000)
        assert (rates[first]["fee_basis_points"], rates[second]["fee_basis_points"]) == (200, 1_000)
        # what is reserved is priced by the same card that is frozen
        assert rows[second].budget_msat > 4 * rows[first].budget_msat
        worker = await found.party(Role.WORKER)
        answer = await worker.session.call(worker.session.work.GetRates, work_pb2.GetRatesRequest())
        assert answer.minimum_msat == 5_000


async def test_quotas_thresholds_and_limits_are_obeyed(tmp_path: Path) -> None:
    async with ruled(tmp_path, max_open_jobs=1, payout_threshold_sats=77, owner_quota_gib=3) as found:
        owner = await found.party(Role.REQUESTER, sats=1_000)
        await owner.submit()
        with pytest.raises(LimitExceeded, match="takes 1"):
            await owner.submit(submission_id="submission-2")
        worker = await found.party(Role.WORKER)
        balance = await worker.session.call(worker.session.wallet.GetBalance, wallet_pb2.GetBalanceRequest())
        assert balance.payout_threshold_msat == 77_000
        kept = await owner.session.call(owner.session.storage.ListArtifacts, storage_pb2.ListArtifactsRequest())
        assert kept.limit_bytes == 3 << 30


async def test_a_new_coordinator_starts_with_the_rules_that_were_made(tmp_path: Path) -> None:
    async with ruled(tmp_path, max_open_jobs=3):
        pass
    async with market(tmp_path) as found:
        assert found.serving.house.now.max_open_jobs == 3


async def test_the_command_line_changes_lists_and_tells(tmp_path: Path) -> None:
    async def run(*words: str) -> str:
        line = ["policy", *words, "--data-dir", str(tmp_path)]
        done = await asyncio.to_thread(CliRunner().invoke, cli.app, line, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    async with market(tmp_path) as found:
        made = json.loads(await run("set", "fee_basis_points", "300", "--reason", "costs", "--json"))
        assert (made["old"], made["new"], made["actor"]) == (200, 300, "command line")
        await found.serving.house.refresh()
        assert found.serving.house.now.fee_basis_points == 300
        listed = {row["name"]: row for row in json.loads(await run("list", "--json"))}
        fee = listed["fee_basis_points"]
        assert (fee["value"], fee["setting"], fee["default"], fee["changed_by"]) == (300, 200, 200, "command line")
        assert listed["intake"]["changed_by"] == ""
        assert "fee_basis_points       300  changed by command line" in await run("list")
        await run("reset", "fee_basis_points", "--reason", "costs fell")
        assert [row["new"] for row in json.loads(await run("history", "--json"))] == [None, 300]
        assert "200 -> 300  command line: costs" in await run("history", "fee_basis_points")
        entries = await found.read(lambda tx: tx.find(AuditEntry, order="id"))
        assert [one.action for one in entries] == ["policy.set", "policy.reset"]


async def test_a_bad_value_on_the_command_line_ends_with_its_bounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with market(tmp_path):
        words = ["x", "policy", "set", "max_open_jobs", "none", "--reason", "x", "--data-dir", str(tmp_path)]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(cli.main)
        assert ended.value.code == 3
        assert "a whole number from 1 to 1,000,000" in capsys.readouterr().err


async def test_quotes_warn_while_intake_is_closed(tmp_path: Path) -> None:
    async with ruled(tmp_path, intake="closed") as found:
        owner = await found.party(Role.REQUESTER)
        request = jobs_pb2.QuoteJobRequest(
            spec_json=json.dumps(
                {
                    "name": "words",
                    "stages": [{"name": "words", "recipe": "count", "data": ["a.txt"]}],
                    "trust": {"class": "public"},
                    "budget": {"max_sats": 10},
                }
            ),
            facts=[jobs_pb2.StageFacts(stage="words", rows=8, input_bytes=240)],
        )
        answer = await owner.session.call(owner.session.jobs.QuoteJob, request)
        assert "job.intake_closed" in [why.code for why in answer.quote.warnings]
