"""The sandbox as it holds on this machine: every way out is tried inside, and outside as the proof that it is one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from shardwork.errors import Conflict
from shardwork_worker.sandbox import bubblewrap, choice, landlock
from shardwork_worker.sandbox.choice import OFF, Ground, Sandbox, choose, lacking, tried
from shardwork_worker.sandbox.jail import Held, Kind, Mode
from shardwork_worker.sandbox.trials import TRIALS, Area

linux_only = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
#: where bwrap is missing or not allowed, what happens then is tested instead
needs_bwrap = pytest.mark.skipif(bubblewrap.find() is None, reason="bwrap is not installed")


#: what any process of this user can do, whatever the machine
SURELY = {
    *("list the home", "read beside the key", "read through a symlink", "read through a hard link"),
    *("write beside the key", "write the inputs", "connect to this machine", "signal the agent", "fork"),
    *("start a program", "environment of the agent", "connect to the control socket"),
}


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    cache = tmp_path / "cache" / "worker"
    return Ground(
        inputs=cache / "artifacts",
        work=cache / "work",
        scratch=cache / "scratch",
        hidden=(tmp_path / "config", tmp_path / "state", tmp_path / "cache"),
        keys=tmp_path / "config" / "keys",
        output_bytes=1 << 30,
    )


@pytest.fixture
def no_bwrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@needs_bwrap
async def test_bubblewrap_closes_every_way_out(ground: Ground) -> None:
    found = await tried(Kind.BUBBLEWRAP, ground)
    if found.kind is Kind.NONE:
        pytest.skip(f"bwrap is refused here: {found.layers}")
    assert (found.escaped, found.holds, found.word) == ({}, True, "bubblewrap")
    assert {name: state for name, (state, _) in found.layers.items()} == dict.fromkeys(
        ("bubblewrap", "limits", "landlock", "seccomp"), "held"
    )


@linux_only
async def test_without_bubblewrap_the_kernels_own_locks_close_every_way_out(ground: Ground, no_bwrap: None) -> None:
    found = await choose(Mode.REQUIRE, ground)
    assert (found.kind, found.escaped, found.open_areas) == (Kind.KERNEL, {}, [])
    assert found.layers["bubblewrap"][0] == Held.ABSENT
    assert "apt install bubblewrap" in found.layers["bubblewrap"][1]
    assert found.command(("child",))[:2] == ("child", "--jail")


async def test_the_ways_out_are_open_without_a_sandbox(ground: Ground) -> None:
    """Else a trial that can't succeed would count as one that was kept out."""
    found = await tried(Kind.NONE, ground)
    reached = set(found.escaped)
    assert {TRIALS[name][0] for name in reached} >= {Area.FILES, Area.NETWORK, Area.PROCESSES}
    assert reached >= SURELY
    assert not found.holds and found.word == "none"


async def test_where_nothing_holds_auto_says_so_and_require_takes_no_work(
    ground: Ground, no_bwrap: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_kernel_locks(kind: Kind, where: Ground) -> Sandbox:
        if kind is not Kind.KERNEL:
            return await tried(kind, where)
        return Sandbox(kind=Kind.NONE, layers={"landlock": (Held.ABSENT.value, "the kernel has no Landlock")})

    monkeypatch.setattr(choice, "tried", no_kernel_locks)
    found = await choose(Mode.AUTO, ground)
    assert found.kind is Kind.NONE and not found.holds
    why = lacking(found)
    assert "files" in why.sentence and "network" in why.sentence
    assert bubblewrap.INSTALL in why.next_step and landlock.INSTALL in why.next_step
    with pytest.raises(Conflict) as caught:
        await choose(Mode.REQUIRE, ground)
    assert caught.value.code == "worker.no_sandbox" and bubblewrap.INSTALL in caught.value.why.next_step


@linux_only
async def test_a_bwrap_that_is_refused_is_told_with_its_last_words(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = await choose(Mode.AUTO, ground)
    state, why = found.layers["bubblewrap"]
    assert (found.kind, state) == (Kind.KERNEL, Held.NOT_HELD)
    assert "Permission denied" in why and "AppArmor" in why


async def test_off_is_off_and_says_what_that_means(ground: Ground) -> None:
    assert await choose(Mode.OFF, ground) is OFF
    assert OFF.command(("child", "x")) == ("child", "x")
    assert set(OFF.open_areas) == {area.value for area in Area}
    assert lacking(OFF).code == "worker.sandbox_off"


def test_a_home_inside_an_editable_install_is_hidden_and_inputs_below_it_are_shown(tmp_path: Path) -> None:
    """The demo keeps workers' homes in the folder that Python is installed from."""
    home = tmp_path / "repo" / "home"
    (home / "cache" / "worker").mkdir(parents=True)
    jail = Ground(
        inputs=home / "cache" / "worker" / "artifacts",
        work=home / "cache" / "worker" / "work",
        scratch=home / "scratch",
        hidden=(home / "cache",),
        keys=home / "keys",
        output_bytes=1,
    ).jail()
    jail = type(jail).from_json(jail.to_json())
    jail = type(jail)(readable=(str(tmp_path / "repo"), jail.readable[-1]), writable=jail.writable, hidden=jail.hidden)
    line = " ".join(bubblewrap.wrapped("bwrap", jail, [sys.executable]))
    shown, hidden, inputs, work = (
        line.index(part)
        for part in (
            f"--ro-bind {tmp_path}/repo {tmp_path}/repo",
            f"--tmpfs {home}/cache",
            f"--ro-bind {home}/cache/worker/artifacts",
            f"--bind {home}/cache/worker/work",
        )
    )
    assert shown < hidden < inputs < work
