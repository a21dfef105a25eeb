"""Tries to get out of the jail, the way hostile code in the child would, and says what succeeded.

A program of its own: `python -I -m shardwork_worker.sandbox.trials --jail JSON --targets JSON`, started inside the very
sandbox that a training child gets. It confines itself first, then tries everything in `TRIALS`, and prints one JSON
object. Nothing it tries harms anybody when it succeeds, and nothing leaves the machine: sockets are tried against
listeners that `choice` opened. Sources: `confine`'s layers, and the escapes that reports on sandboxes list.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from .confine import confine, jail_of
from .jail import Jail, Kind

TARGETS_FLAG = "--targets"
PTRACE_ATTACH, PTRACE_DETACH = 16, 17
CLONE_NEWUSER = 0x10000000
METADATA = ("169.254.169.254", 80)
#: one more than the limit, made sparse where the system allows
BEYOND = 4096


class Area(StrEnum):
    """What a trial goes for. The first four must hold before a worker says that it has a sandbox."""

    FILES = "files"
    NETWORK = "network"
    PROCESSES = "processes"
    KERNEL = "kernel"
    RESOURCES = "resources"


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What there is to reach outside: made or named by the agent."""

    home: str
    #: a file beside the worker's key, which holds `secret`
    secret_file: str
    secret: str
    #: holds inputs, which may be read and not written
    inputs: str
    agent_pid: int
    tcp_port: int
    abstract_name: str
    socket_path: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Targets:
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Place:
    jail: Jail
    targets: Targets

    @property
    def work(self) -> Path:
        return Path(self.jail.writable[0])


#: raises OSError when it was kept from it; what it returns is what it got
Trial = Callable[[Place], object]


def main() -> int:
    arguments = sys.argv[1:]
    jail = jail_of(arguments)
    assert jail is not None
    layers = confine(jail)
    place = Place(jail, Targets.from_json(arguments[arguments.index(TARGETS_FLAG) + 1]))
    print(json.dumps({"layers": layers, "escaped": attempt(place)}))
    return 0


def attempt(place: Place) -> dict[str, str]:
    """Trial -> what it got, of those that got out. The sandbox without holes gives an empty one."""
    found: dict[str, str] = {}
    for name, (_, trial) in TRIALS.items():
        if place.jail.processes and name in NEEDED_BY_SEVERAL:
            continue
        try:
            got = trial(place)
        except (OSError, ValueError, MemoryError):
            continue
        if got:
            found[name] = str(got)[:100]
    return found


# ---- files ----------------------------------------------------------------------------------------------------------


def _list_home(place: Place) -> object:
    """Python itself often lies below it, so the folders on the way to what may be read are no find."""
    jail, home = place.jail, Path(place.targets.home)
    shown = [Path(path) for path in (*jail.readable, *jail.writable)]
    on_the_way = {path.relative_to(home).parts[0] for path in shown if path.is_relative_to(home) and path != home}
    return set(os.listdir(home)) - on_the_way and "its files can be listed"


def _read_secret(place: Place) -> object:
    return _read(place.targets.secret_file)


def _read_through_link(place: Place) -> object:
    link = _fresh(place)
    link.symlink_to(place.targets.secret_file)
    return _read(str(link))


def _read_through_hard_link(place: Place) -> object:
    link = _fresh(place)
    os.link(place.targets.secret_file, link)
    return _read(str(link))


def _read_through_first_process(place: Place) -> object:
    return _read("/proc/1/root" + place.targets.secret_file)


def _read_through_agent(place: Place) -> object:
    return _read(f"/proc/{place.targets.agent_pid}/root" + place.targets.secret_file)


def _read_passwords(place: Place) -> object:
    return _read("/etc/shadow")


def _write_home(place: Place) -> object:
    return _write(Path(place.targets.home) / ".shardwork-trial")


def _write_beside_secret(place: Place) -> object:
    return _write(Path(place.targets.secret_file).with_name(".shardwork-trial"))


def _write_inputs(place: Place) -> object:
    return _write(Path(place.targets.inputs) / ".shardwork-trial")


def _write_python(place: Place) -> object:
    return _write(Path(__file__).with_name(".shardwork-trial"))


def _write_system(place: Place) -> object:
    folders = ("/", "/usr/lib", "/etc", "/var/tmp")
    return any(_quietly(_write, Path(folder) / ".shardwork-trial") for folder in folders)


def _leave_by_chroot(place: Place) -> object:
    os.chroot(place.work)
    return "chroot is allowed"


def _make_device(place: Place) -> object:
    os.mknod(_fresh(place), 0o600 | stat.S_IFBLK, os.makedev(8, 0))
    return "a disk's device node can be made"


def _read_memory_device(place: Place) -> object:
    return any(_quietly(_opens, name) for name in ("/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/proc/kcore"))


def _set_kernel(place: Place) -> object:
    names = ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper")
    return any(_quietly(_opens, name, os.O_WRONLY) for name in names)


# ---- network --------------------------------------------------------------------------------------------------------


def _connect_loopback(place: Place) -> object:
    return _connects(socket.AF_INET, ("127.0.0.1", place.targets.tcp_port))


def _send_datagram(place: Place) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.connect(METADATA)
        return "there is a route out"


def _connect_metadata(place: Place) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        made.setblocking(False)
        refused = made.connect_ex(METADATA)
        return refused in (0, errno.EINPROGRESS) and "the cloud's metadata address has a route"


def _connect_abstract(place: Place) -> object:
    return _connects(socket.AF_UNIX, "\0" + place.targets.abstract_name)


def _connect_control(place: Place) -> object:
    folder, _, name = place.targets.socket_path.rpartition("/")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # a path may be too long for an address
    try:
        return _connects(socket.AF_UNIX, f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)


def _raw_socket(place: Place) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP):
        return "raw packets can be sent"


# ---- other processes ------------------------------------------------------------------------------------------------


def _environment_of_first(place: Place) -> object:
    with open("/proc/1/environ", "rb") as file:
        return place.targets.secret.encode() in file.read() and "process 1 shows the secret"


def _environment_of_agent(place: Place) -> object:
    return _opens(f"/proc/{place.targets.agent_pid}/environ") and "the agent's environment can be read"


def _memory_of_agent(place: Place) -> object:
    return _opens(f"/proc/{place.targets.agent_pid}/mem")


def _trace(place: Place) -> object:
    for pid in {place.targets.agent_pid, os.getppid()} - {0}:
        if _libc().ptrace(PTRACE_ATTACH, pid, None, None) == 0:
            os.waitpid(pid, 0)
            _libc().ptrace(PTRACE_DETACH, pid, None, None)
            return f"process {pid} can be traced"
    return None


def _read_memory(place: Place) -> object:
    class Span(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    # an address of the agent's that exists in any process is not known; EFAULT would mean that it may be read
    into, of = ctypes.create_string_buffer(8), Span(4096, 8)
    mine = Span(ctypes.addressof(into), 8)
    call = _libc().process_vm_readv
    got = call(place.targets.agent_pid, ctypes.byref(mine), 1, ctypes.byref(of), 1, 0)
    return (got >= 0 or ctypes.get_errno() == errno.EFAULT) and "the agent's memory can be read"


def _signal_agent(place: Place) -> object:
    os.kill(place.targets.agent_pid, 0)
    return "the agent can be signalled"


def _signal_everybody(place: Place) -> object:
    if place.jail.kind is Kind.BUBBLEWRAP:
        return None  # everybody is the sandbox itself
    os.kill(-1, 0)
    return "every process of this user can be signalled"


def _limits_of_agent(place: Place) -> object:
    resource.prlimit(place.targets.agent_pid, resource.RLIMIT_NOFILE)
    return "the agent's limits can be set"


def _new_process(place: Place) -> object:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "processes can be made, also without end"


def _new_program(place: Place) -> object:
    # a program that is not there: ENOENT or EACCES would come after permission to start programs at all
    try:
        os.execv("/nonexistent/program", ["program"])
    except FileNotFoundError:
        return "programs can be started"
    return None


def _terminal(place: Place) -> object:
    return _opens("/dev/tty", os.O_RDWR)


# ---- the kernel -----------------------------------------------------------------------------------------------------


def _namespace(place: Place) -> object:
    return _calls("unshare", CLONE_NEWUSER)


def _mount(place: Place) -> object:
    return _calls("mount", b"none", b"/tmp", b"tmpfs", 0, None)


def _become_root(place: Place) -> object:
    text = Path("/proc/self/status").read_text()
    return "NoNewPrivs:\t1" not in text and "programs could raise privileges"


def _call(number: int, *arguments: int) -> Trial:
    """A system call by its number on both machines' common table."""

    def trial(place: Place) -> object:
        result = _libc().syscall(number, *arguments)
        refused = result < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS, errno.EACCES)
        with contextlib.suppress(OSError):
            if result > 2:
                os.close(result)
        return None if refused else f"call {number} is answered"

    return trial


def _other_call(x86_64: int, aarch64: int, *arguments: int) -> Trial:
    return _call(x86_64 if os.uname().machine == "x86_64" else aarch64, *arguments)


# ---- resources ------------------------------------------------------------------------------------------------------


def _fill_scratch(place: Place) -> object:
    with tempfile.TemporaryFile(dir=place.jail.scratch) as file:
        os.posix_fallocate(file.fileno(), 0, _beyond_scratch(place))
        return "the disk behind temporary files can be filled"


def _beyond_scratch(place: Place) -> int:
    # without a file system of its own only the size of one file is limited
    limit = place.jail.scratch_bytes if place.jail.kind is Kind.BUBBLEWRAP else place.jail.file_bytes
    return limit + BEYOND


def _large_file(place: Place) -> object:
    with tempfile.TemporaryFile(dir=place.work) as file:
        os.ftruncate(file.fileno(), place.jail.file_bytes + BEYOND)
        return "a file can be larger than allowed"


def _much_memory(place: Place) -> object:
    if not place.jail.memory_bytes:
        return "there is no limit"
    with mmap.mmap(-1, place.jail.memory_bytes + BEYOND, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
        return "more memory can be had than there is"


def _raise_limits(place: Place) -> object:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return "limits can be raised again"


def _core_dump(place: Place) -> object:
    return resource.getrlimit(resource.RLIMIT_CORE)[1] != 0 and "memory can be dumped to a file"


# ---- inside ---------------------------------------------------------------------------------------------------------


def _read(path: str) -> object:
    with open(path, "rb") as file:
        return f"{path} can be read" if file.read(1) else None


def _write(path: Path) -> object:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    path.unlink()
    return f"files can be made in {path.parent}"


def _opens(path: str, flags: int = os.O_RDONLY) -> object:
    os.close(os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK))
    return f"{path} can be opened"


def _quietly(trial: Callable[..., object], *arguments: object) -> object:
    with contextlib.suppress(OSError):
        return trial(*arguments)
    return None


def _fresh(place: Place) -> Path:
    """A new name in the writable folder; whatever becomes of it is removed by the agent with the folder."""
    path = place.work / ".shardwork-trial"
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return path


def _connects(family: int, address: object) -> object:
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.settimeout(1)
        made.connect(address)  # type: ignore[arg-type]
        return f"{address} can be reached"


def _calls(name: str, *arguments: object) -> object:
    return getattr(_libc(), name)(*arguments) == 0 and f"{name} is allowed"


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


TRIALS: Mapping[str, tuple[Area, Trial]] = {
    "list the home": (Area.FILES, _list_home),
    "read beside the key": (Area.FILES, _read_secret),
    "read through a symlink": (Area.FILES, _read_through_link),
    "read through a hard link": (Area.FILES, _read_through_hard_link),
    "read through process 1": (Area.FILES, _read_through_first_process),
    "read through the agent": (Area.FILES, _read_through_agent),
    "read password hashes": (Area.FILES, _read_passwords),
    "write the home": (Area.FILES, _write_home),
    "write beside the key": (Area.FILES, _write_beside_secret),
    "write the inputs": (Area.FILES, _write_inputs),
    "write Python's packages": (Area.FILES, _write_python),
    "write the system": (Area.FILES, _write_system),
    "make a device": (Area.FILES, _make_device),
    "open a raw device": (Area.FILES, _read_memory_device),
    "set the kernel": (Area.FILES, _set_kernel),
    "connect to this machine": (Area.NETWORK, _connect_loopback),
    "send a datagram": (Area.NETWORK, _send_datagram),
    "connect to cloud metadata": (Area.NETWORK, _connect_metadata),
    "connect to an abstract socket": (Area.NETWORK, _connect_abstract),
    "connect to the control socket": (Area.NETWORK, _connect_control),
    "send raw packets": (Area.NETWORK, _raw_socket),
    "environment of process 1": (Area.PROCESSES, _environment_of_first),
    "environment of the agent": (Area.PROCESSES, _environment_of_agent),
    "memory file of the agent": (Area.PROCESSES, _memory_of_agent),
    "trace a process": (Area.PROCESSES, _trace),
    "read a process's memory": (Area.PROCESSES, _read_memory),
    "signal the agent": (Area.PROCESSES, _signal_agent),
    "signal everybody": (Area.PROCESSES, _signal_everybody),
    "set the agent's limits": (Area.PROCESSES, _limits_of_agent),
    "fork": (Area.PROCESSES, _new_process),
    "start a program": (Area.PROCESSES, _new_program),
    "open the terminal": (Area.PROCESSES, _terminal),
    "new user namespace": (Area.KERNEL, _namespace),
    "mount": (Area.KERNEL, _mount),
    "raise privileges": (Area.KERNEL, _become_root),
    "load a BPF program": (Area.KERNEL, _other_call(321, 280, 0, 0, 0)),
    "keyring": (Area.KERNEL, _other_call(250, 219, 0, -3, 0)),
    "userfaultfd": (Area.KERNEL, _other_call(323, 282, 1)),
    "io_uring": (Area.KERNEL, _call(425, 1, 0)),
    "performance events": (Area.KERNEL, _other_call(298, 241, 0, 0, -1, -1, 0)),
    "fill temporary space": (Area.RESOURCES, _fill_scratch),
    "a file beyond the limit": (Area.RESOURCES, _large_file),
    "memory beyond the limit": (Area.RESOURCES, _much_memory),
    "raise limits again": (Area.RESOURCES, _raise_limits),
    "dump core": (Area.RESOURCES, _core_dump),
    # last: where it is allowed, paths mean something else from here on
    "leave by chroot": (Area.FILES, _leave_by_chroot),
}
#: several GPUs need several processes
NEEDED_BY_SEVERAL = frozenset({"fork", "start a program"})


if __name__ == "__main__":
    # a write beyond a limit is to be an error, not the end
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sys.exit(main())
