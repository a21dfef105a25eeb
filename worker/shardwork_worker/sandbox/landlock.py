"""The inner layer over files: Landlock, which a process puts on itself without any privilege.

Owns the ruleset: the jail's folders and nothing else, no TCP, no abstract sockets and no signals beyond this process
and its children. With bubblewrap around it this is a second lock on the same door; without, it is the door. Sources:
landlock(7), Documentation/userspace-api/landlock.rst. Called by `confine` in the child.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable

from .jail import GPU_DRIVERS, GPU_HARDWARE, HARDWARE, SETTINGS, SYSTEM, Jail, Kind

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG, PATH_BENEATH = 1, 1
PR_SET_NO_NEW_PRIVS = 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE = 1 << 13, 1 << 14
#: all of the first version: the four above, removing, and making each kind of file
FIRST_VERSION = (1 << 13) - 1
MAKE_CHARACTER_DEVICE, MAKE_BLOCK_DEVICE = 1 << 6, 1 << 11
READ = EXECUTE | READ_FILE | READ_DIR
#: what can be said of a file that is no folder
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
BIND_TCP_CONNECT_TCP = 0b11
ABSTRACT_SOCKETS_SIGNALS = 0b11
INSTALL = "Landlock comes with Linux 5.13 and newer, with `landlock` among the kernel's security modules (lsm=)."
#: of /proc: itself, and what tells processors and memory apart
PROC = ("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/driver/nvidia")
PLAIN_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Of the kernel's Landlock; 0 without one."""
    return max(0, int(_libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG)))


def load(jail: Jail) -> str:
    """Restricts this thread and all that it starts. Empty when it holds, else why not."""
    found = version()
    if not found:
        return "the kernel has no Landlock"
    libc = _libc()
    handled = FIRST_VERSION | (REFER if found >= 2 else 0) | (TRUNCATE if found >= 3 else 0)
    ruleset = _Ruleset(
        handled,
        BIND_TCP_CONNECT_TCP if found >= 4 and not jail.processes else 0,
        ABSTRACT_SOCKETS_SIGNALS if found >= 6 else 0,
    )
    size = ctypes.c_size_t(24 if found >= 6 else 16 if found >= 4 else 8)
    descriptor = libc.syscall(CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    if descriptor < 0:
        return f"ruleset: {os.strerror(ctypes.get_errno())}"
    try:
        for path, wanted in _rules(jail):
            _allow(libc, descriptor, path, wanted & handled)
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.syscall(RESTRICT_SELF, descriptor, 0) != 0:
            return f"restrict: {os.strerror(ctypes.get_errno())}"
    finally:
        os.close(descriptor)
    return ""


def _rules(jail: Jail) -> Iterable[tuple[str, int]]:
    # a device node could be opened below a folder that may be written, whatever disk it stands for
    everything = (FIRST_VERSION & ~(MAKE_CHARACTER_DEVICE | MAKE_BLOCK_DEVICE)) | REFER | TRUNCATE
    if jail.kind is Kind.BUBBLEWRAP:
        yield "/", READ  # what bubblewrap shows is what may be read
        writable: tuple[str, ...] = (*jail.writable, "/tmp", "/dev/shm")
    else:
        readable = (*SYSTEM, *SETTINGS, *HARDWARE, *PROC, *jail.readable)
        yield from ((path, READ) for path in readable)
        writable = jail.writable
        if jail.devices:
            yield from ((path, READ) for path in (*GPU_HARDWARE, *GPU_DRIVERS))
    yield from ((path, everything) for path in writable)
    yield from ((path, READ_FILE | READ_DIR | WRITE_FILE) for path in (*PLAIN_DEVICES, *jail.devices))


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, allowed: int) -> None:
    """Adds a rule; a path that is not there needs none."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            allowed &= OF_FILES
        rule = _Beneath(allowed, descriptor)
        libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
