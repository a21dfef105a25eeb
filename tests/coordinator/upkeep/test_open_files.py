"""How many files may be open, and who may take them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shardwork_coordinator.upkeep.open_files import OpenFiles

CODE = """
import resource
from shardwork_coordinator.upkeep.open_files import OpenFiles
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(OpenFiles.allow({wanted}).most, *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "most"),
    [(256, 2048, 1024, 1024), (256, 512, 1024, 512), (1500, 2048, 1024, 1500), (512, 512, 1024, 512)],
)
def test_the_own_limit_is_raised_and_never_lowered(soft: int, hard: int, wanted: int, most: int) -> None:
    code = CODE.format(soft=soft, hard=hard, wanted=wanted)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [int(word) for word in done.stdout.split()] == [most, most, hard]


@pytest.mark.parametrize("most", [256, 1024, 65_536])
def test_strangers_leave_a_fifth_to_the_store(most: int) -> None:
    files = OpenFiles(most)
    assert 0 < files.web < files.grpc and files.grpc + files.web <= most - most // 5


def test_a_thousand_workers_do_not_fit_a_shells_usual_limit() -> None:
    assert OpenFiles(1024).are_few and not OpenFiles(20_000).are_few
