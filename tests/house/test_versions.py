"""Versions: the stubs fit the runtime that users install, and are what the protos generate now."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from . import stubs
from .tree import ROOT

PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?(?P<how>==|>=)(?P<version>[0-9.]+)")


def requirements(pyproject: Mapping[str, Any]) -> list[str]:
    project = pyproject["project"]
    return [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]


def floors_apart_from_the_generator(lines: Iterable[str]) -> list[str]:
    """grpcio packages whose lowest version is not the version that generated the stubs."""
    pins = {found["name"]: found for line in lines if (found := PIN.match(line))}
    generator = pins.get("grpcio-tools")
    if generator is None or generator["how"] != "==":
        return ["grpcio-tools is not pinned"]
    return [
        f"{name}{found['how']}{found['version']} but grpcio-tools=={generator['version']}"
        for name, found in pins.items()
        if name.startswith("grpcio") and found["version"] != generator["version"]
    ]


def too_new(pinned: Mapping[str, str], lowest: str) -> list[str]:
    """Pinned packages that refuse the lowest Python this project promises, by what each of them asks for."""
    return [f"{name} needs Python {asks}" for name, asks in pinned.items() if not SpecifierSet(asks).contains(lowest)]


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def test_the_grpcio_floor_is_the_version_that_generated_the_stubs() -> None:
    lines = requirements(_pyproject())
    assert floors_apart_from_the_generator(lines) == []
    pinned = next(found["version"] for line in lines if (found := PIN.match(line)) and found["name"] == "grpcio-tools")
    made = re.findall(r"GRPC_GENERATED_VERSION = '([0-9.]+)'", _all_stubs("*_pb2_grpc.py"))
    assert set(made) == {pinned}


def test_the_protobuf_floor_is_not_below_the_generated_code() -> None:
    floor = next(
        found["version"]
        for line in requirements(_pyproject())
        if (found := PIN.match(line)) and found["name"] == "protobuf"
    )
    made = re.findall(r"Protobuf Python Version: ([0-9.]+)", _all_stubs("*_pb2.py"))
    assert made and all(_version(one) <= _version(floor) for one in made)


def test_a_floor_apart_from_the_generator_is_found() -> None:
    assert floors_apart_from_the_generator(["grpcio>=1.80.0", "grpcio-tools==1.85.1"]) == [
        "grpcio>=1.80.0 but grpcio-tools==1.85.1"
    ]
    assert floors_apart_from_the_generator(["grpcio>=1.85.1"]) == ["grpcio-tools is not pinned"]


def test_every_pinned_package_takes_the_lowest_python_that_is_promised() -> None:
    """Debian 12 has Python 3.11.2, and its pip says only that versions are in conflict."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = [Requirement(line).name for line in lines if line.strip() and not line.startswith("#")]
    promised = str(_pyproject()["project"]["requires-python"]).removeprefix(">=") + ".0"
    assert len(names) > 100
    assert too_new({name: distribution(name).metadata["Requires-Python"] or "" for name in names}, promised) == []


def test_a_package_that_is_too_new_is_found() -> None:
    assert too_new({"one": ">=3.9", "two": ">=3.11.5"}, "3.11.0") == ["two needs Python >=3.11.5"]


def test_the_stubs_are_what_the_protos_generate() -> None:
    assert stubs.drift() == []


def test_a_changed_proto_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (ROOT / "proto").rglob("*.proto"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8").replace("string job_id = 1;", "string job = 1;"))
    for path in (ROOT / "shardwork" / "v1").glob("*_pb2*.py*"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(stubs, "ROOT", tmp_path)
    assert "shardwork/v1/jobs_pb2.py" in stubs.drift()


def _all_stubs(pattern: str) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "shardwork/v1").glob(pattern)))
