"""The published `openai` client, unmodified, against a real coordinator and real workers: from rows to an adapter that
transformers and peft load."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from openai.types.fine_tuning import FineTuningJob
from openai.types.fine_tuning.job_create_params import Hyperparameters
from processes import BIN

from . import models
from .world import World

LOADS = (
    "import sys\n"
    "from peft import PeftModel\n"
    "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
    "base = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
    "model = PeftModel.from_pretrained(base, sys.argv[2])\n"
    "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
    "rows = tokenizer('Which is longer?', return_tensors='pt')\n"
    "told = model.generate(**rows, max_new_tokens=3, do_sample=False)\n"
    "assert told.shape[1] > rows['input_ids'].shape[1]\n"
    "print(sum(p.abs().sum().item() for n, p in model.named_parameters() if 'lora_B' in n) > 0)\n"
)


@pytest.fixture(scope="module")
def client(town: World) -> Iterator[OpenAI]:
    """A program of the town's requester, with a model offered and rows to send."""
    models.write_chat(town.folder / "few.jsonl", rows=24)
    models.write_chat(town.folder / "valid.jsonl", rows=8)
    offer = [str(BIN / "shardwork-coordinator"), "model", "add", "tiny", str(town.folder / "models" / "gpt2")]
    environment = town.processes.environment("coordinator-home")
    folder = ["--data-dir", str(town.folder / "coordinator")]
    subprocess.run([*offer, *folder], env=environment, check=True, capture_output=True)
    key = str(town.ask("api-key", "create", "--name", "openai")["key"])
    with OpenAI(base_url=f"{town.processes.web}/v1", api_key=key, max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def tuned(town: World, client: OpenAI) -> FineTuningJob:
    """A job that was created with "auto", followed by polling, and succeeded."""
    with (town.folder / "few.jsonl").open("rb") as rows, (town.folder / "valid.jsonl").open("rb") as held_out:
        train = client.files.create(file=rows, purpose="fine-tune")
        valid = client.files.create(file=held_out, purpose="fine-tune")
    assert client.files.wait_for_processing(train.id).status == "processed"
    wishes: Hyperparameters = {"n_epochs": 1, "batch_size": "auto", "learning_rate_multiplier": "auto"}
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=train.id,
        validation_file=valid.id,
        suffix="rivers",
        seed=7,
        hyperparameters=wishes,
        metadata={"max_sats": "100"},
    )
    seen = wait(town, client, job, "succeeded", "failed")
    assert seen[-1] == "succeeded" and set(seen) <= {"validating_files", "queued", "running", "succeeded"}
    return client.fine_tuning.jobs.retrieve(job.id)


def wait(world: World, client: OpenAI, job: FineTuningJob, *wanted: str) -> list[str]:
    """Polls until the job has one of these statuses; every status that was seen."""
    seen: list[str] = []

    def look() -> bool:
        status = client.fine_tuning.jobs.retrieve(job.id).status
        if not seen or seen[-1] != status:
            seen.append(str(status))
        return status in wanted

    world.until(look, f"{job.id} to be {wanted}")
    return seen


def test_a_tuning_job_is_followed_and_its_results_are_downloaded(
    town: World, client: OpenAI, tuned: FineTuningJob
) -> None:
    assert tuned.trained_tokens and tuned.fine_tuned_model == f"ft:tiny:rivers:{tuned.id.removeprefix('ftjob-')}"
    events = list(client.fine_tuning.jobs.list_events(tuned.id, limit=5))
    assert len({event.id for event in events}) == len(events) > 5
    metrics = [event for event in events if event.type == "metrics"]
    points = list(client.fine_tuning.jobs.checkpoints.list(tuned.id))
    assert len(metrics) == len(points) > 0
    assert all(point.metrics.train_loss and point.metrics.valid_loss for point in points)
    table, archive = tuned.result_files
    assert len(client.files.content(table).text.splitlines()) == 1 + len(points)
    assert archive in [file.id for file in client.files.list(purpose="fine-tune-results")]
    adapter = unpacked(client, archive, town.folder / "got")
    assert {path.name for path in adapter.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert tuned.fine_tuned_model in [model.id for model in client.models.list()]


@pytest.mark.nightly
def test_the_downloaded_adapter_loads_and_speaks(
    town: World, client: OpenAI, tuned: FineTuningJob, tmp_path: Path
) -> None:
    adapter = unpacked(client, tuned.result_files[1], tmp_path)
    command = [sys.executable, "-c", LOADS, str(town.folder / "models" / "gpt2"), str(adapter)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


@pytest.mark.nightly
def test_a_second_job_goes_on_from_the_first_is_paused_resumed_and_cancelled(
    town: World, client: OpenAI, tuned: FineTuningJob
) -> None:
    point = next(iter(client.fine_tuning.jobs.checkpoints.list(tuned.id)))
    again = client.fine_tuning.jobs.create(
        model=point.fine_tuned_model_checkpoint,
        training_file=tuned.training_file,
        hyperparameters={"n_epochs": "auto", "learning_rate_multiplier": 0.5},
    )
    assert str(client.fine_tuning.jobs.pause(again.id).status) == "paused"
    assert str(client.fine_tuning.jobs.resume(again.id).status) != "paused"
    assert client.fine_tuning.jobs.cancel(again.id).status == "cancelled"
    assert next(iter(client.fine_tuning.jobs.list(limit=1))).id == again.id
    assert town.books()["balanced"]


@pytest.mark.nightly
def test_a_model_that_was_deleted_is_gone_and_its_job_says_so(client: OpenAI, tuned: FineTuningJob) -> None:
    assert client.models.delete(str(tuned.fine_tuned_model)).deleted
    assert client.fine_tuning.jobs.retrieve(tuned.id).fine_tuned_model is None
    with pytest.raises(NotFoundError):
        client.files.content(tuned.result_files[1])


def unpacked(client: OpenAI, archive: str, into: Path) -> Path:
    """The adapter's folder."""
    data = client.files.content(archive).read()
    assert client.files.retrieve(archive).bytes == len(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        # before Python 3.11.4 there is none
        opened.extraction_filter = getattr(tarfile, "data_filter", None)
        opened.extractall(into)
    return next(into.iterdir())


def test_a_wrong_row_and_a_wrong_wish_reach_the_client_as_its_own_errors(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.files.create(file=("bad.jsonl", b'{"messages": [{"role": "user"}]}\n'), purpose="fine-tune")
    assert (caught.value.code, caught.value.param) == ("data.invalid", "file")
    assert "bad.jsonl:1" in caught.value.message
    with pytest.raises(BadRequestError) as caught:
        client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file="file-x")
    assert (caught.value.code, caught.value.param) == ("tuning.no_model", "model")
