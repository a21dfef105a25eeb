"""The filter: its numbers against the kernel's own headers, and its decisions run by an interpreter of the test."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from shardwork_worker.sandbox import seccomp
from shardwork_worker.sandbox.jail import Jail, Kind

HEADERS = {0: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), 1: Path("/usr/include/asm-generic/unistd.h")}
PID = 4711
ALONE = Jail(readable=(), writable=(), kind=Kind.BUBBLEWRAP)
SEVERAL = Jail(readable=(), writable=(), kind=Kind.BUBBLEWRAP, processes=True)
BARE = Jail(readable=(), writable=(), kind=Kind.KERNEL)


def decide(jail: Jail, name: str, argument: int = 0, machine: str = "x86_64", arch: int | None = None) -> int:
    """What the kernel would do: -1 kills, 0 allows, else the error number; 1000 stands for "done", without doing it."""
    number = seccomp.NUMBERS[name][0 if machine == "x86_64" else 1]
    assert number is not None
    words = {0: number, 4: seccomp.ARCHES[machine] if arch is None else arch, 16: argument & 0xFFFFFFFF}
    program = seccomp.assemble(jail, machine, PID)
    value = at = 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code == seccomp.LOAD:
            value = words[k]
        elif code == seccomp.RETURN:
            if k == seccomp.ALLOW:
                return 0
            return -1 if k == seccomp.KILL else (k & 0xFFFF) or 1000
        else:
            holds = {seccomp.JUMP_EQUAL: value == k, seccomp.JUMP_AT_LEAST: value >= k}
            at += yes if holds.get(code, bool(value & k)) else no


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_refused_call_is_refused_on_every_machine(machine: str) -> None:
    column = 0 if machine == "x86_64" else 1
    for name in (*seccomp.NEVER, *seccomp.ALONE):
        if seccomp.NUMBERS[name][column] is not None:
            assert decide(ALONE, name, machine=machine) == errno.EPERM, name
    assert decide(ALONE, "clone3", machine=machine) == errno.ENOSYS
    assert decide(ALONE, "clone", seccomp.CLONE_THREAD | 0x100, machine) == 0
    assert decide(ALONE, "clone", 0x100, machine) == errno.EPERM


@pytest.mark.parametrize("name", seccomp.ABOUT_ONESELF)
def test_signals_and_limits_reach_this_process_alone(name: str) -> None:
    assert [decide(ALONE, name, pid) for pid in (PID, 0, 1, PID + 1, -1)] == [0, 0, *[errno.EPERM] * 3]


def test_several_gpus_may_have_processes_and_talk_but_no_more() -> None:
    assert [decide(SEVERAL, name) for name in ("fork", "execve", "socket", "kill")] == [0] * 4
    assert [decide(SEVERAL, name) for name in ("ptrace", "unshare", "mount", "bpf")] == [errno.EPERM] * 4


def test_without_a_file_system_of_its_own_modes_and_owners_stay_as_they_are() -> None:
    assert decide(ALONE, "fchmodat") == 0
    assert decide(BARE, "fchmodat") == decide(BARE, "chown") == 1000


def test_calls_of_another_architecture_end_the_process() -> None:
    assert decide(ALONE, "mount", arch=0x40000003) == -1


@pytest.mark.parametrize("column", HEADERS)
def test_the_numbers_are_the_kernels(column: int) -> None:
    if not HEADERS[column].exists():
        pytest.skip("the kernel's headers are not installed")
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[column].read_text()))
    # newer than these headers
    known = {name: numbers[column] for name, numbers in seccomp.NUMBERS.items() if name in found}
    assert len(known) > 60 and known == {name: int(found[name]) for name in known}
    missing = {name for name, numbers in seccomp.NUMBERS.items() if numbers[column] is None}
    assert not missing & set(found), "the machine has a call that the table says it lacks"
