"""The inner layer against the kernel: system calls that training never needs are refused to this process for good.

Owns a filter assembled by hand (no library is needed) and its loading. What is refused: sockets, other processes'
memory and signals, new processes and programs, namespaces, mounts, keys, and the kernel's riskier doors. A refusal is
an error number, not a kill, so that a library that only tries goes on. Sources: seccomp(2), the kernel's
Documentation/userspace-api/seccomp_filter.rst, and its tables of system calls. Called by `confine` in the child.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Iterable, Mapping

from .jail import Jail, Kind

#: AUDIT_ARCH_* by machine
ARCHES: Mapping[str, int] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
#: x86_64, aarch64; None where the machine lacks the call
NUMBERS: Mapping[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chmod": (90, None),
    "chown": (92, None),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "execve": (59, 221),
    "execveat": (322, 281),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "finit_module": (313, 273),
    "fork": (57, None),
    "fsconfig": (431, 431),
    "fsetxattr": (190, 7),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "futimesat": (261, None),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "kill": (62, 129),
    "lchown": (94, None),
    "lsetxattr": (189, 6),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "prlimit64": (302, 261),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "semget": (64, 190),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "setpriority": (141, 140),
    "settimeofday": (164, 170),
    "setxattr": (188, 5),
    "shmat": (30, 196),
    "shmget": (29, 194),
    "socket": (41, 198),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "tgkill": (234, 131),
    "tkill": (200, 130),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "utime": (132, None),
    "utimensat": (280, 88),
    "utimes": (235, None),
    "vfork": (58, None),
}
#: refused whatever runs here
NEVER = (
    *("acct", "add_key", "adjtimex", "bpf", "chroot", "clock_adjtime", "clock_settime", "delete_module"),
    *("finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "init_module", "io_uring_enter", "io_uring_register"),
    *("io_uring_setup", "ioperm", "iopl", "kexec_file_load", "kexec_load", "keyctl", "modify_ldt", "mount"),
    *("mount_setattr", "move_mount", "mq_open", "msgget", "name_to_handle_at", "open_by_handle_at", "open_tree"),
    *("perf_event_open", "personality", "pidfd_getfd", "pivot_root", "process_madvise", "process_vm_readv"),
    *("process_vm_writev", "ptrace", "quotactl", "reboot", "request_key", "rt_sigqueueinfo", "rt_tgsigqueueinfo"),
    *("semget", "setdomainname", "sethostname", "setns", "setpriority", "settimeofday", "shmat", "shmget"),
    *("swapoff", "swapon", "syslog", "umount2", "unshare", "uselib", "userfaultfd"),
)
#: refused where one process is all there is
ALONE = ("execve", "execveat", "fork", "pidfd_open", "pidfd_send_signal", "socket", "tkill", "vfork")
#: allowed only about this process itself; argument 0 is a process id
ABOUT_ONESELF = ("kill", "prlimit64", "tgkill")
#: without a file system of its own: Landlock does not stop these on files elsewhere, and a copied file's mode is no
#: loss, so they answer "done" and do nothing
OF_OTHERS_FILES = (
    *("chmod", "chown", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "fsetxattr", "futimesat", "lchown"),
    *("lsetxattr", "setxattr", "utime", "utimensat", "utimes"),
)

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
#: offsets in struct seccomp_data: number, architecture, low half of argument 0
NUMBER_AT, ARCH_AT, FIRST_ARGUMENT_AT = 0, 4, 16
CLONE_THREAD = 0x00010000
X32_BIT = 0x40000000
PR_SET_NO_NEW_PRIVS, SECCOMP_SET_MODE_FILTER, TSYNC = 38, 1, 1
SECCOMP_CALL = {"x86_64": 317, "aarch64": 277}

Instruction = tuple[int, int, int, int]


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


def load(jail: Jail) -> str:
    """Puts the filter on every thread of this process. Empty when it holds, else why not."""
    machine = platform.machine()
    if machine not in ARCHES:
        return f"there is no table of system calls for {machine}"
    program = assemble(jail, machine, os.getpid())
    array = (_Instruction * len(program))(*(_Instruction(*one) for one in program))
    filter_ = _Program(len(program), ctypes.cast(array, ctypes.POINTER(_Instruction)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return f"no_new_privs: {os.strerror(ctypes.get_errno())}"
    if libc.syscall(SECCOMP_CALL[machine], SECCOMP_SET_MODE_FILTER, TSYNC, ctypes.byref(filter_)) != 0:
        return f"seccomp: {os.strerror(ctypes.get_errno())}"
    return ""


def assemble(jail: Jail, machine: str, own_pid: int) -> list[Instruction]:
    """The filter as (code, jump if true, jump if false, value), for `machine`."""
    column = 0 if machine == "x86_64" else 1
    program: list[Instruction] = [
        (LOAD, 0, 0, ARCH_AT),
        (JUMP_EQUAL, 1, 0, ARCHES[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_AT),
    ]
    if machine == "x86_64":
        program += [(JUMP_AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, ERRNO | errno.ENOSYS)]
    program += _refuse(_numbers(NEVER, column), errno.EPERM)
    if not jail.processes:
        program += _refuse(_numbers(ALONE, column), errno.EPERM)
        # libraries fall back to clone, whose flags a filter can read
        program += _refuse(_numbers(["clone3"], column), errno.ENOSYS)
        for number in _numbers(["clone"], column):
            program += _only(number, (JUMP_ANY_BIT, 0, 1, CLONE_THREAD))
        for number in _numbers(ABOUT_ONESELF, column):
            program += _only(number, (JUMP_EQUAL, 1, 0, own_pid), (JUMP_EQUAL, 0, 1, 0))
    if jail.kind is not Kind.BUBBLEWRAP:
        program += _refuse(_numbers(OF_OTHERS_FILES, column), 0)
    return [*program, (RETURN, 0, 0, ALLOW)]


def _numbers(names: Iterable[str], column: int) -> list[int]:
    return [number for name in names if (number := NUMBERS[name][column]) is not None]


def _refuse(numbers: Iterable[int], answer: int) -> list[Instruction]:
    return [part for number in numbers for part in ((JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, ERRNO | answer))]


def _only(number: int, *tests: Instruction) -> list[Instruction]:
    """Allows the call where the tests of argument 0 end at the next instruction, refuses it where they skip one."""
    body: list[Instruction] = [
        (LOAD, 0, 0, FIRST_ARGUMENT_AT),
        *tests,
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, ERRNO | errno.EPERM),
    ]
    return [(JUMP_EQUAL, 0, len(body), number), *body]
