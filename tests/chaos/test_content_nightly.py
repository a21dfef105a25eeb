"""kill -9 of the coordinator as stored content changes hands: old uploads go, owners give up, models of a hub come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..e2e import models
from ..e2e.jobfile import write_sft
from ..hub_stand import COMMIT, Hub, hub_of
from .aims import AT_COPY, AT_DELETION_BY_OWNER, AT_EXPIRY
from .drill import drill

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]

#: everything becomes old within a second
AGED = {"SHARDWORK_UPLOAD_KEEP_HOURS": "0.0001", "SHARDWORK_KEEP_DAYS": "0.000001"}
#: what the coordinator itself keeps of hubs
COPIES = "select purpose from artifact where owner = 'house' and purpose like 'hub:%' order by purpose"


def test_a_kill_as_an_old_upload_is_given_up_loses_nothing_that_a_job_needs(tmp_path: Path) -> None:
    """A cancelled job's inputs are given up with the next start; a job that is submitted then finds or sends them."""
    with drill(tmp_path, "alice", settings=AGED) as stage:
        stage.freeze("alice")
        cancelled = stage.submit()
        assert stage.coordinator.persist("job", "cancel", cancelled).returncode == 0
        inputs = "select count(*) from artifact where purpose = 'input' and state = 'stored'"
        assert stage.world.rows(inputs) == [(1,)]
        old = f"{inputs} and created_ms < unixepoch() * 1000 - 2000"
        stage.world.until(lambda: stage.world.rows(old) == [(1,)], "the upload to be old")
        stage.arm(AT_EXPIRY)
        stage.wait_killed()
        assert stage.world.rows(inputs) == [(0,)]
        stage.thaw("alice")
        job = stage.submit()
        assert stage.world.rows(inputs) == [(1,)]
        stage.check_done(job)


def test_a_kill_as_an_owner_gives_content_up_takes_it_away_and_nothing_else(tmp_path: Path) -> None:
    with drill(tmp_path, "alice") as stage:
        job = stage.submit()
        stage.check_done(job)
        before = {one["id"]: one["kind"] for one in stage.world.ask("artifact", "list")}
        (report,) = (artifact for artifact, kind in before.items() if kind == "output")
        stage.arm(AT_DELETION_BY_OWNER)
        given_up = stage.coordinator.persist("artifact", "delete", report, "--json")
        assert (given_up.returncode, json.loads(given_up.stdout)) == (0, {"id": report})
        stage.wait_killed()
        after = {one["id"] for one in stage.world.ask("artifact", "list")}
        assert after == set(before) - {report}
        assert stage.world.run("job", "download", job, "gone").exit_code != 0
        # the same content again, by a job that makes it anew
        again = stage.submit()
        stage.check_done(again)
        stage.world.succeed("job", "download", again, "made")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with hub_of(models.write_gpt2(tmp_path / "acme-tiny")) as served:
        yield served


def test_a_kill_as_a_hubs_model_is_copied_fetches_its_weights_once(hub: Hub, tmp_path: Path) -> None:
    settings = {"SHARDWORK_HUB_URL": hub.url, "SHARDWORK_HUB_ALLOW": "acme/*"}
    _, keep, grant = AT_COPY
    with drill(tmp_path / "world", "alice", "bob", settings=settings) as stage:
        models.write_chat(stage.world.folder / "chat.jsonl")
        file = write_sft(stage.world.folder, base_model="hub:acme/tiny@main", shards=1, steps=2)
        stage.arm((keep, grant))
        assert stage.coordinator.persist("job", "plan", file).returncode == 0
        stage.wait_killed()
        pinned = f"hub:acme/tiny@{COMMIT}"
        assert stage.world.rows(COPIES) == [(f"hub:facts:{pinned}",)]
        asked = len(hub.ranges("model.safetensors"))
        # now the weights: room is made, they come, are noted and given to whoever asked
        stage.arm(AT_COPY)
        job = stage.submit(file)
        stage.wait_killed()
        assert stage.world.rows(COPIES) == [(pinned,), (f"hub:facts:{pinned}",)]
        assert hub.ranges("model.safetensors")[asked:] == [""], "what was fetched before a kill is not fetched again"
        # set up, evaluated and published by two keys each
        stage.check_done(job, copies=3)
