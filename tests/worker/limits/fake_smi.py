"""A fake nvidia-smi: a script on the PATH that prints what a test writes, and notes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HEADER = "| NVIDIA-SMI 550.54.14   Driver Version: 550.54.14   CUDA Version: 12.4     |"
GPU = "0, NVIDIA A100, 550.54.14, 40960, 1024, 77, 61, {watts}, 300.00"


class FakeSmi:
    """On the PATH as `nvidia-smi`. `say` changes what it answers."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        script = folder / "nvidia-smi"
        script.write_text(
            "#!/bin/sh\n"
            f'case "$1" in --query-gpu*) cat {folder}/gpus;; --query-compute*) cat {folder}/pids;; '
            f"*) cat {folder}/header;; esac\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        self.say(watts="250.50")

    def say(self, *, watts: str = "250.50", pids: str = "", header: str = HEADER, gpus: str = "") -> None:
        (self._folder / "gpus").write_text(gpus or GPU.format(watts=watts) + "\n")
        (self._folder / "pids").write_text(pids)
        (self._folder / "header").write_text(header)

    def break_down(self) -> None:
        """As when the driver and the library do not match."""
        (self._folder / "nvidia-smi").write_text("#!/bin/sh\necho 'Failed to initialize NVML'\nexit 18\n")
