"""One job per way of tuning: what comes out loads with plain transformers and peft, and holds no path or pickle."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shardwork.tensors.file import read_tensors

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
    """All three jobs. The adapter's job names its base by an absolute path, which must not come out again."""
    reports: dict[str, Any] = {}
    for method in METHODS:
        base = town.folder / "models" / "gpt2" if method == "lora" else "models/gpt2"
        file = write_sft(town.folder, f"{method}.yaml", name=f"rivers-{method}", method=method, base_model=base)
        job = town.submit(file)
        reports[method] = town.finish(job)
        assert town.run("job", "download", job, f"made/{method}").exit_code == 0
    folders = {method: town.folder / "made" / method / "sft.model" for method in METHODS}
    loaded = _load(town, [str(folder) for folder in folders.values()])
    return {method: Tuned(reports[method], folders[method], loaded[str(folders[method])]) for method in METHODS}


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
