"""Measures an upload, hashed, fsynced and committed, against a raw gRPC client stream of the same frames.

    python bench/upload.py [--mebibytes 512] [--repeats 3]

Two processes each time, on loopback without TLS: a server and a client. The raw server counts bytes; the durable one
is the coordinator's servicer over a folder and SQLite; its client hashes the folder first, and that is timed too. The
sealed one is the same with encryption at rest.
Writes bench/results/upload.json: MB/s (10^6 bytes) as medians, their ratio, CPU seconds (the steadier number on a busy
machine) and the peak resident memory of both sides.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio

from shardwork.v1 import artifacts_pb2 as pb
from shardwork.v1 import artifacts_pb2_grpc

RESULTS = Path(__file__).parent / "results" / "upload.json"
FRAME_BYTES = 256 << 10
OPTIONS = (("grpc.http2.bdp_probe", 0), ("grpc.max_receive_message_length", 4 << 20))


class RawServicer(artifacts_pb2_grpc.ArtifactsServiceServicer):
    """Takes frames and forgets them."""

    async def UploadLeaves(self, request_iterator: AsyncIterator[Any], context: Any) -> pb.UploadLeavesResponse:
        count = 0
        async for frame in request_iterator:
            count += len(frame.data)
        return pb.UploadLeavesResponse(durable_leaves=count)

    async def BeginUpload(self, request: Any, context: Any) -> pb.BeginUploadResponse:
        return pb.BeginUploadResponse()

    async def GetManifest(self, request: Any, context: Any) -> pb.GetManifestResponse:
        return pb.GetManifestResponse()

    async def DownloadLeaves(self, request: Any, context: Any) -> AsyncIterator[pb.DownloadLeavesResponse]:
        yield pb.DownloadLeavesResponse()


class Session:
    """What `transfer` needs, without enrolment."""

    def __init__(self, port: int) -> None:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS)
        self.artifacts: Any = artifacts_pb2_grpc.ArtifactsServiceStub(channel)

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    async def call(self, method: Any, request: Any, *, timeout_s: float = 30.0, retries: int = 5) -> Any:
        return await method(request, timeout=timeout_s)


def durable_servicer(root: Path, *, sealed: bool) -> Any:
    from shardwork.clock import SystemClock
    from shardwork.identity.role import Role
    from shardwork_coordinator.artifacts import ArtifactStore
    from shardwork_coordinator.artifacts.opening import sealer_of
    from shardwork_coordinator.rpc.artifacts import ArtifactDesk, ArtifactsServicer
    from shardwork_coordinator.rpc.auth import Caller, FixedGate
    from shardwork_coordinator.store.sql import SqlStore

    rows = SqlStore(f"sqlite:///{root / 'rows.sqlite'}")
    rows.start()
    sealer = sealer_of(root / "keys" / "storage.key", seals=sealed)
    desk = ArtifactDesk(rows, ArtifactStore.open(root / "artifacts", sealer=sealer), SystemClock())
    return ArtifactsServicer(FixedGate(Caller("0a", b"\0" * 32, Role.REQUESTER)), desk)


async def serve(kind: str, root: Path) -> None:
    """Prints the port, serves until its input ends, then prints its peak memory."""
    server = grpc.aio.server(options=OPTIONS)
    add: Any = artifacts_pb2_grpc.add_ArtifactsServiceServicer_to_server
    add(RawServicer() if kind == "raw" else durable_servicer(root, sealed=kind == "sealed"), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)
    print(json.dumps(spent()), flush=True)


async def send(kind: str, port: int, folder: Path) -> None:
    """Uploads the folder once; prints seconds and peak memory."""
    session = Session(port)
    start = time.perf_counter()
    if kind != "raw":
        from shardwork.transfer import upload_folder

        await upload_folder(session, folder, purpose="input")
    else:
        await send_raw(session, folder)
    print(json.dumps({"seconds": time.perf_counter() - start, **spent()}), flush=True)


async def send_raw(session: Session, folder: Path) -> None:
    call = session.artifacts.UploadLeaves()
    for path in folder.iterdir():
        with path.open("rb", buffering=0) as file:
            while data := file.read(FRAME_BYTES):
                await call.write(pb.UploadLeavesRequest(data=data))
    await call.done_writing()
    await call


def spent() -> dict[str, float]:
    """Peak memory and CPU of this process, its start and imports included."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"peak_mib": usage.ru_maxrss / 1024, "cpu_s": usage.ru_utime + usage.ru_stime}


def one(kind: str, folder: Path, root: Path) -> dict[str, float]:
    """One upload between two fresh processes."""
    root.mkdir()
    base = [sys.executable, __file__, "--role"]
    with subprocess.Popen(
        [*base, "server", kind, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        client = subprocess.run(
            [*base, "client", kind, port, str(folder)], check=True, stdout=subprocess.PIPE, text=True
        )
        told, _ = server.communicate()
    sides = {"client": json.loads(client.stdout), "server": json.loads(told)}
    seconds = sides["client"].pop("seconds")
    spending = {f"{side}_{name}": value for side, spent in sides.items() for name, value in spent.items()}
    return {"seconds": seconds, **spending}


def measure(mebibytes: int, repeats: int) -> dict[str, Any]:
    runs: dict[str, list[dict[str, float]]] = {"raw": [], "durable": [], "sealed": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "in"
        folder.mkdir()
        with (folder / "weights").open("wb") as file:
            for _ in range(mebibytes):
                file.write(os.urandom(1 << 20))
        for repeat in range(repeats):
            # each kind goes first once: who writes into memory that the machine never used before pays for that
            for kind in [*runs][repeat % len(runs) :] + [*runs][: repeat % len(runs)]:
                root = Path(scratch) / f"{kind}{repeat}"
                runs[kind].append(one(kind, folder, root))
                shutil.rmtree(root)
    return summary(mebibytes, runs)


def summary(mebibytes: int, runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    result: dict[str, Any] = {"mebibytes": mebibytes, "cores": os.cpu_count(), "machine": platform.machine()}
    for kind, measured in runs.items():
        seconds = statistics.median(run["seconds"] for run in measured)
        result[kind] = {
            "mb_per_s": round(mebibytes * 1.048576 / seconds, 1),
            "mb_per_s_each": [round(mebibytes * 1.048576 / run["seconds"], 1) for run in measured],
            "client_peak_mib": round(max(run["client_peak_mib"] for run in measured), 1),
            "server_peak_mib": round(max(run["server_peak_mib"] for run in measured), 1),
            "client_cpu_s": round(statistics.median(run["client_cpu_s"] for run in measured), 2),
            "server_cpu_s": round(statistics.median(run["server_cpu_s"] for run in measured), 2),
        }
    result["durable_share_of_raw"] = round(result["durable"]["mb_per_s"] / result["raw"]["mb_per_s"], 3)
    result["sealed_share_of_durable"] = round(result["sealed"]["mb_per_s"] / result["durable"]["mb_per_s"], 3)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--role", nargs="+", default=[], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    match arguments.role:
        case ["server", kind, root]:
            asyncio.run(serve(kind, Path(root)))
        case ["client", kind, port, folder]:
            asyncio.run(send(kind, int(port), Path(folder)))
        case _:
            result = measure(arguments.mebibytes, arguments.repeats)
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(result, indent=2) + "\n")
            print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
