"""A training child without torch for the worker's tests: speaks the frames and does what the order says.

Orders: {"do": "copy"} copies the inputs into output `delta` and adds "mib" MiB; {"do": "wait"} reports half and waits
for an interrupt or for the file "go"; {"do": "hang"} waits and ignores interrupts; {"do": "crash"}, {"do": "fail"} and
{"do": "outside"} go wrong. Every run appends a line to the file named by "log"; "beside"
names a file that it writes beside its folder. Run as `python fake_child.py`.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

from shardwork_worker.frames import read_frame, write_frame

IN = os.fdopen(os.dup(0), "rb", buffering=0)
OUT = os.fdopen(os.dup(1), "wb", buffering=0)
WORK: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
INTERRUPTED: set[str] = set()


def read() -> None:
    while (message := read_frame(IN)) is not None:
        if message["type"] == "interrupt":
            INTERRUPTED.add(message["lease_id"])
        else:
            WORK.put(message)
    os._exit(0)


def failed(message: dict[str, Any], code: str) -> dict[str, Any]:
    why: dict[str, Any] = {"code": code, "sentence": "The fake child failed.", "evidence": {}, "next_step": ""}
    return {"type": "failed", "lease_id": message.get("lease_id", ""), "why": why}


def run(message: dict[str, Any]) -> dict[str, Any]:
    order = json.loads(message["order_json"])
    if "log" in order:
        with open(order["log"], "a") as log:
            log.write(f"{message['lease_id']} {sorted(message['inputs'])}\n")
    output = Path(message["output_dir"]) / "delta"
    lease_id = message["lease_id"]
    write_frame(OUT, {"type": "progress", "lease_id": lease_id, "fraction": 0.5, "loss": 1.25})
    if "beside" in order:
        (Path(message["output_dir"]).parent / order["beside"]).write_bytes(b"x" * 300_000)
    match order["do"]:
        case "crash":
            print("the fake child crashes as it was told", file=sys.stderr, flush=True)
            os._exit(3)
        case "fail":
            return failed(message, order.get("code", "test.failed"))
        case "hang":
            threading.Event().wait()
        case "wait":
            while not Path(order["go"]).exists():
                if lease_id in INTERRUPTED:
                    return failed(message, "trainer.interrupted")
                time.sleep(0.01)
        case "outside":
            output = Path(message["output_dir"]).parent.parent
        case _:
            pass
    if order["do"] != "outside":
        output.mkdir(parents=True)
        for name, folder in message["inputs"].items():
            shutil.copytree(folder, output / name)
        # every leaf differs, so nothing can be skipped
        with open(output / "made", "wb") as made:
            for number in range(order.get("mib", 0)):
                made.write(number.to_bytes(8, "big") * (1024 * 128))
            made.write(message["seed"].encode())
    return {
        "type": "done",
        "lease_id": lease_id,
        "outputs": {"delta": str(output)},
        "metrics": {"train_loss": 1.25},
        "compute_ms": 12,
    }


def rebuild(message: dict[str, Any]) -> dict[str, Any]:
    into = Path(message["into"])
    into.mkdir()
    parts = [(Path(message[name]) / "w").read_bytes() for name in ("checkpoint", "step", "moments")]
    (into / "w").write_bytes(b"".join(parts))
    return {"type": "rebuilt", "into": message["into"]}


def main() -> None:
    threading.Thread(target=read, daemon=True).start()
    cpu = {"device": "cpu", "name": "fake cpu", "memory_bytes": 1 << 30}
    write_frame(
        OUT, {"type": "ready", "torch": "", "device_name": "fake cpu", "memory_bytes": 1 << 30, "devices": [cpu]}
    )
    while True:
        message = WORK.get()
        write_frame(OUT, run(message) if message["type"] == "run" else rebuild(message))


if __name__ == "__main__":
    main()
