"""`base_model: hub:…` from the job file to an adapter: pinned in the plan, copied by the coordinator, trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..hub_stand import COMMIT, Hub, hub_of
from . import models
from .jobfile import write_sft
from .world import CALM, WORKERS, World


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with hub_of(models.write_gpt2(tmp_path / "acme-tiny")) as served:
        yield served


@pytest.fixture
def allowed(hub: Hub, tmp_path: Path) -> Iterator[World]:
    """A coordinator whose operator allows this hub's models, with two workers."""
    settings = {**CALM, "SHARDWORK_HUB_URL": hub.url, "SHARDWORK_HUB_ALLOW": "acme/*"}
    world = World(tmp_path / "allowed", settings)
    try:
        world.start(*WORKERS, sats=1_000)
        models.write_chat(world.folder / "chat.jsonl")
        yield world
    finally:
        world.stop()


def test_a_job_trains_a_model_that_only_the_hub_has(allowed: World, hub: Hub) -> None:
    file = write_sft(allowed.folder, base_model="hub:acme/tiny@main")
    pinned = f"hub:acme/tiny@{COMMIT}"
    planned = allowed.ask("job", "plan", file)
    assert planned["stages"][0]["run_params"] > 0
    assert all(asked for asked in hub.ranges("model.safetensors")[1:]), "a plan reads no weights"
    job = allowed.submit(file)
    report = allowed.finish(job)
    assert report["state"] == "succeeded"
    assert allowed.rows("select spec_json from job where id = ?", job)[0][0].count(pinned) == 1
    assert allowed.rows("select count(*) from artifact where owner = 'house' and purpose = ?", pinned) == [(1,)]
    # a second job finds the copy
    asked = len(hub.seen)
    assert allowed.submit(write_sft(allowed.folder, "again.yaml", name="again", base_model=pinned))
    assert len(hub.seen) == asked
    assert allowed.run("job", "download", job, "made").exit_code == 0
    config = json.loads((allowed.folder / "made" / "sft.model" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("acme/tiny", COMMIT)


def test_a_hub_that_the_operator_does_not_allow_is_refused_with_the_setting(quiet: World) -> None:
    models.write_chat(quiet.folder / "chat.jsonl")
    said = quiet.run("job", "plan", write_sft(quiet.folder, base_model="hub:acme/tiny@main"), "--json")
    assert said.exit_code == 5 and said.error["code"] == "hub.not_allowed" and "hub_allow" in said.error["next_step"]
