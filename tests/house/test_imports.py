"""Imports: what is heavy stays where it is needed, and generated messages stay at the edges.

Module-level imports are read from the source; what a process really loads is asked of a fresh interpreter.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from .tree import ROOT, SOURCES, Module, assert_none, imported, imports_at_load, modules, planted

#: seconds and gigabytes to import
HEAVY = frozenset({"torch", "transformers", "peft", "trl", "accelerate"})
#: the one package whose modules are loaded by the training child alone
CHILD_ONLY = "worker/shardwork_worker/training/"

#: modules that may name generated messages: the wire's two ends and what stands directly behind them
SPEAKS_PROTO: frozenset[str] = frozenset(
    (
        "coordinator/shardwork_coordinator/app.py",
        "coordinator/shardwork_coordinator/api/native.py",
        "coordinator/shardwork_coordinator/api/openai/creating.py",
        "coordinator/shardwork_coordinator/api/openai/files.py",
        "coordinator/shardwork_coordinator/api/openai/jobs.py",
        "coordinator/shardwork_coordinator/api/openai/models.py",
        "coordinator/shardwork_coordinator/api/streams.py",
        "coordinator/shardwork_coordinator/api/submitting.py",
        "coordinator/shardwork_coordinator/api/uploads.py",
        "coordinator/shardwork_coordinator/rpc/artifacts.py",
        "coordinator/shardwork_coordinator/rpc/asked.py",
        "coordinator/shardwork_coordinator/rpc/auth.py",
        "coordinator/shardwork_coordinator/rpc/enrolment.py",
        "coordinator/shardwork_coordinator/granting.py",
        "coordinator/shardwork_coordinator/rpc/jobs.py",
        "coordinator/shardwork_coordinator/links.py",
        "coordinator/shardwork_coordinator/rpc/models.py",
        "coordinator/shardwork_coordinator/rpc/operator.py",
        "coordinator/shardwork_coordinator/rpc/proposal.py",
        "coordinator/shardwork_coordinator/rpc/steering.py",
        "coordinator/shardwork_coordinator/rpc/storage.py",
        "coordinator/shardwork_coordinator/views.py",
        "coordinator/shardwork_coordinator/rpc/wallet.py",
        "coordinator/shardwork_coordinator/rpc/attach.py",
        "coordinator/shardwork_coordinator/rpc/results.py",
        "coordinator/shardwork_coordinator/rpc/said.py",
        "coordinator/shardwork_coordinator/rpc/measure.py",
        "coordinator/shardwork_coordinator/rpc/work.py",
        "coordinator/shardwork_coordinator/rpc/api_keys.py",
        "shardwork/api_key.py",
        "shardwork/client/calls.py",
        "shardwork/client/facts.py",
        "shardwork/client/hub.py",
        "shardwork/client/job.py",
        "shardwork/client/plan.py",
        "shardwork/client/received.py",
        "shardwork/client/submission.py",
        "shardwork/client/submit.py",
        "shardwork/direct.py",
        "shardwork/identity/authority.py",
        "shardwork/identity/envelope.py",
        "shardwork/identity/role.py",
        "shardwork/session.py",
        "shardwork/transfer.py",
        "shardwork/wire.py",
        "shardwork/work.py",
        "worker/shardwork_worker/agent.py",
        "worker/shardwork_worker/account/asking.py",
        "worker/shardwork_worker/account/earnings.py",
        "worker/shardwork_worker/doctor/line.py",
        "worker/shardwork_worker/lease.py",
        "worker/shardwork_worker/offer.py",
        "worker/shardwork_worker/probe.py",
        "worker/shardwork_worker/stream.py",
    )
)


def heavy_at_load(module: Module) -> list[str]:
    if module.path.startswith(CHILD_ONLY):
        return []
    return [
        f"{module.path}:{node.lineno} imports {name}"
        for node in imports_at_load(module.tree)
        for name in imported(node)[:1]
        if name.split(".")[0] in HEAVY
    ]


def speaks_proto(module: Module) -> bool:
    """Also counts imports inside functions and for types: a signature is a dependency."""
    return any(
        "_pb2" in name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in imported(node)
    )


def loaded_by(*names: str) -> set[str]:
    """Packages and modules that a fresh interpreter holds after importing these modules."""
    command = f"import sys, json, {', '.join(names)}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-c", command], capture_output=True, text=True, check=True)
    listed: list[str] = json.loads(done.stdout)
    return set(listed)


def _package(folder: str, package: str) -> list[str]:
    """Dotted names of a package's modules."""
    found = sorted(Path(ROOT, folder, *package.split(".")).glob("*.py"))
    return [f"{package}.{path.stem}" for path in found if not path.stem.startswith("__")]


def test_heavy_libraries_are_imported_at_load_by_the_training_child_only() -> None:
    assert_none([line for module in modules(*SOURCES) for line in heavy_at_load(module)])


def test_generated_messages_are_named_only_by_the_listed_modules() -> None:
    now = {module.path for module in modules(*SOURCES) if speaks_proto(module)}
    assert_none(f"{path} is not on the list" for path in sorted(now - SPEAKS_PROTO))
    assert_none(f"{path} names no message any more: drop it" for path in sorted(SPEAKS_PROTO - now))


@pytest.mark.parametrize(
    ("names", "forbidden"),
    [
        pytest.param(
            ["shardwork_client.cli", *_package("client", "shardwork_client.commands")],
            {*HEAVY, "numpy", "sqlalchemy", "safetensors", "fastapi"},
            id="client command line",
        ),
        pytest.param(
            [*_package("client", "shardwork_client"), *_package("", "shardwork.client")],
            {*HEAVY, "numpy", "sqlalchemy", "safetensors", "fastapi"},
            id="all of the client",
        ),
        pytest.param(
            ["shardwork_client.access", "shardwork_client.render", "shardwork_client.views"],
            {
                "shardwork.jobs",
                "shardwork.dataset",
                "shardwork.models",
                "shardwork.recipes",
                "shardwork.transfer",
                "yaml",
            },
            id="job list and job show",
        ),
        pytest.param(
            ["shardwork_worker.cli", "shardwork_worker.app", "shardwork_worker.agent"],
            {*HEAVY, "numpy", "sqlalchemy", "safetensors", "fastapi"},
            id="worker agent",
        ),
        pytest.param(["shardwork_worker.child"], HEAVY, id="worker child before its first shard"),
        pytest.param(["shardwork_coordinator.app", "shardwork_coordinator.executor"], HEAVY, id="coordinator"),
    ],
)
def test_a_process_loads_nothing_that_it_does_not_need(names: list[str], forbidden: set[str]) -> None:
    assert sorted(loaded_by(*names) & forbidden) == []


def test_a_heavy_import_at_load_is_found_wherever_it_hides() -> None:
    hidden = "if True:\n  try:\n    import torch.nn\n  except ImportError:\n    pass\n"
    assert heavy_at_load(planted(hidden)) == ["shardwork/planted.py:3 imports torch.nn"]
    assert heavy_at_load(planted("class A:\n  from peft import LoraConfig\n")) != []
    assert heavy_at_load(planted(hidden, CHILD_ONLY + "planted.py")) == []
    assert heavy_at_load(planted("def f():\n  import torch\n")) == []
    assert heavy_at_load(planted("if TYPE_CHECKING:\n  import torch\n")) == []


def test_a_message_off_the_list_is_found() -> None:
    assert speaks_proto(planted("def f():\n  from shardwork.v1 import jobs_pb2\n"))
    assert not speaks_proto(planted("from shardwork.v1 import nothing\n"))


def test_a_package_that_a_process_loads_indirectly_is_found() -> None:
    assert "numpy" in loaded_by("shardwork.tensors.encoding")
