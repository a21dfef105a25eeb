"""One job per way of tuning: what comes out loads with plain transformers and peft, and holds no path or pickle."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shardwork.tensors.file import read_tensors
from tests.shardwork.dataset.folders import write_parquet

from .jobfile import write_sft
from .world import World

METHODS = ("lora", "full", "partial")
ALLOWED = {".safetensors", ".json", ".md", ".jinja", ".txt"}


@dataclass(frozen=True, slots=True)
class Tuned:
    """A job's report, its downloaded model, and what a process that knows nothing of us found in it."""

    report: Any
    folder: Path
    loaded: Any


@pytest.fixture(scope="module")
def tuned(town: World) -> dict[str, Tuned]:
    """All three jobs. The adapter's job names its base by an absolute path, which must not come out again, and reads
    its rows from a Parquet table in ShareGPT's form, twice each, and from a table of another name for messages."""
    sources = _other_forms(town.folder)
    reports: dict[str, Any] = {}
    for method in METHODS:
        base = town.folder / "models" / "gpt2" if method == "lora" else "models/gpt2"
        file = write_sft(town.folder, f"{method}.yaml", name=f"rivers-{method}", method=method, base_model=base)
        if method == "lora":
            write_sft(town.folder, file, name="rivers-lora", method=method, base_model=base, data=sources)
        job = town.submit(file)
        reports[method] = town.finish(job)
        assert town.run("job", "download", job, f"made/{method}").exit_code == 0
    folders = {method: town.folder / "made" / method / "sft.model" for method in METHODS}
    loaded = _load(town, [str(folder) for folder in folders.values()])
    return {method: Tuned(reports[method], folders[method], loaded[str(folders[method])]) for method in METHODS}


def _other_forms(folder: Path) -> str:
    """The first rows of the chat as Parquet of conversations and as CSV; the job's `data` that reads them."""
    talks = [json.loads(line)["messages"] for line in (folder / "chat.jsonl").read_text().splitlines()[:60]]
    speakers = {"user": "human", "assistant": "gpt", "system": "system"}
    turns = [[{"from": speakers[each["role"]], "value": each["content"]} for each in talk] for talk in talks]
    write_parquet(folder / "talks.parquet", {"conversations": turns[:40]})
    with (folder / "talks.csv").open("w", encoding="utf-8", newline="") as sink:
        csv.writer(sink).writerows([["id", "talk"], *([n, json.dumps(talk)] for n, talk in enumerate(talks[40:]))])
    return "[{path: talks.parquet, weight: 2}, {path: talks.csv, mapping: {messages: talk}}]"


def _load(town: World, folders: list[str]) -> Any:
    script = Path(__file__).with_name("load_outputs.py")
    done = subprocess.run(
        [sys.executable, "-I", str(script), str(town.folder / "models" / "gpt2"), *folders],
        env=town.processes.environment("reader"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("method", METHODS)
def test_the_output_loads_elsewhere_and_says_something_else_than_its_base(tuned: dict[str, Tuned], method: str) -> None:
    found = tuned[method].loaded
    assert found["adapter"] is (method == "lora")
    assert found["finite"] and found["changed"] > 1e-3
    assert found["same_tokens"] and found["new_tokens"] >= 1


@pytest.mark.parametrize("method", METHODS)
def test_the_output_holds_no_pickle_and_no_path_of_this_machine(
    town: World, tuned: dict[str, Tuned], method: str
) -> None:
    files = [path for path in tuned[method].folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    assert {path.suffix for path in files} <= ALLOWED
    here = (str(town.folder).encode(), str(Path.home()).encode() + b"/", b"/tmp/")
    assert [path.name for path in files if any(word in path.read_bytes() for word in here)] == []


def test_rows_come_from_other_forms_with_their_weights_and_the_plan_says_so(
    town: World, tuned: dict[str, Tuned]
) -> None:
    plan = json.loads(town.run("job", "plan", "lora.yaml", "--json").stdout)
    (stage,) = plan["stages"]
    assert [(source["format"], source["rows"], source["reads"]) for source in stage["sources"]] == [
        ("sharegpt", 40, 80),
        ("messages", 20, 20),
    ]
    assert tuned["lora"].report["state"] == "succeeded"
    # 12 of 60 are held out; of the other 48, those of the first table are read twice
    card = (tuned["lora"].folder / "README.md").read_text()
    rows = int(card.split("| training rows | ", 1)[1].split(" ", 1)[0])
    assert 76 <= rows <= 88


def test_answers_of_a_few_tokens_are_not_asked_for_by_heart(tuned: dict[str, Tuned]) -> None:
    assert tuned["lora"].report["stages"][0]["memorised"] is None


def test_the_adapter_names_its_base_without_a_path(tuned: dict[str, Tuned]) -> None:
    config = json.loads((tuned["lora"].folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "gpt2"


@pytest.mark.parametrize("method", METHODS)
def test_the_held_out_loss_is_reported_and_lower_than_at_the_start(tuned: dict[str, Tuned], method: str) -> None:
    report = tuned[method].report
    assert report["state"] == "succeeded" and report["self_evaluated"] is False
    rounds = {one["kind"]: one for one in report["stages"][0]["rounds"]}
    assert rounds["learn"]["eval_loss"] < rounds["setup"]["eval_loss"]
    assert rounds["learn"]["train_loss"] > 0
    kinds = {output["name"]: output["kind"] for output in report["outputs"]}
    assert kinds["sft.model"] == ("adapter" if method == "lora" else "model")


def test_partial_tuning_leaves_the_first_layer_and_the_embeddings_alone(town: World, tuned: dict[str, Tuned]) -> None:
    before = read_tensors(town.folder / "models" / "gpt2" / "model.safetensors")
    after = read_tensors(tuned["partial"].folder / "model.safetensors")
    assert set(after) == set(before)
    changed = {name for name in before if before[name].tobytes() != after[name].tobytes()}
    assert changed and all(name.startswith(("transformer.h.1.", "transformer.ln_f.")) for name in changed)


def test_full_tuning_changes_every_layer(town: World, tuned: dict[str, Tuned]) -> None:
    before = read_tensors(town.folder / "models" / "gpt2" / "model.safetensors")
    after = read_tensors(tuned["full"].folder / "model.safetensors")
    unchanged = {name for name in before if before[name].tobytes() == after[name].tobytes()}
    assert unchanged == set()


def test_rows_that_share_sequences_teach_through_the_whole_job(town: World) -> None:
    file = write_sft(town.folder, "packed.yaml", name="rivers-packed", method="lora, packing: true", rounds=2, steps=6)
    (plan,) = town.ask("job", "plan", file)["stages"]
    packing = plan["packing"]
    assert packing["layout"] == "packed" and packing["sequences"] < packing["rows"]
    report = town.finish(town.submit(file))
    assert report["state"] == "succeeded", report["why"]
    (stage,) = report["stages"]
    losses = [one["eval_loss"] for one in stage["rounds"] if one["kind"] in ("setup", "learn")]
    assert losses[-1] < losses[0]
