"""Updating for real: pip, wheels made of this tree, an environment of its own; a good version and a broken one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PARTS = ("shardwork", "coordinator", "worker", "client", "pyproject.toml", "README.md", "LICENSE")

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]


def wheel(folder: Path, version: str, *, starts: bool = True) -> Path:
    """This tree as a wheel that calls itself so."""
    source = folder / f"source-{version}"
    source.mkdir()
    for part in PARTS:
        place = ROOT / part
        copy = shutil.copytree if place.is_dir() else shutil.copy2
        copy(place, source / part)
    project = source / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "0.1.0"', f'version = "{version}"', 1))
    if not starts:
        (source / "worker/shardwork_worker/app.py").write_text("raise RuntimeError('this one does not start')\n")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(source)]
    subprocess.run(command, check=True)
    return folder / f"shardwork-{version}-py3-none-any.whl"


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment that borrows every package of this one but Shardwork itself."""
    place = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    inner = next((place / "lib").glob("python*")) / "site-packages"
    borrowed = Path(pytest.__file__).parents[1]
    names = [one for one in borrowed.iterdir() if "shardwork" not in one.name and one.suffix != ".pth"]
    for one in names:
        if not (inner / one.name).exists():
            (inner / one.name).symlink_to(one)
    return place


def worker(environment: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHARDWORK_", "PYTHON"))}
    return subprocess.run(
        [str(environment / "bin" / "shardwork-worker"), *arguments],
        env={**kept, "SHARDWORK_HOME": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


def version_of(environment: Path) -> str:
    question = "import json, importlib.metadata as m; print(json.dumps(m.version('shardwork')))"
    done = subprocess.run([str(environment / "bin" / "python"), "-I", "-c", question], capture_output=True, check=True)
    return str(json.loads(done.stdout))


def test_a_good_version_stays_and_one_that_does_not_start_goes(environment: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, str(wheel(tmp_path, "0.1.1"))], check=True)
    good, bad = wheel(tmp_path, "0.1.2"), wheel(tmp_path, "0.1.3", starts=False)

    done = worker(environment, home, "update", "--yes", "--to", str(good))
    assert done.returncode == 0, done.stderr
    assert "0.1.1 -> 0.1.2" in done.stderr and version_of(environment) == "0.1.2"

    again = worker(environment, home, "update", "--yes", "--to", str(good))
    assert again.returncode == 0 and version_of(environment) == "0.1.2"

    broken = worker(environment, home, "update", "--yes", "--to", str(bad))
    assert broken.returncode == 1, broken.stderr
    assert "0.1.2 is back" in broken.stderr and "update.rolled_back" in broken.stderr
    assert "this one does not start" in broken.stderr
    assert version_of(environment) == "0.1.2"
    assert worker(environment, home, "status").returncode == 4

    missing = worker(environment, home, "update", "--yes", "--to", "99.0")
    assert missing.returncode == 7 and "update.not_found" in missing.stderr
