"""What leaves the machine with a reason: the cause, and no folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardwork.why import Why
from shardwork_worker.disclosure import KEPT_LETTERS, disclosed


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("[Errno 2] No such file: '/srv/alice/cache/x.bin'", "[Errno 2] No such file: '…/x.bin'"),
        ('File "/opt/a b/venv/lib/x.py", line 3', 'File "…/x.py", line 3'),
        ("shard job/tune/r1/s0 at http://host/a/b, 5/6 of it", "shard job/tune/r1/s0 at http://host/a/b, 5/6 of it"),
        ("/dev", "/dev"),
    ],
)
def test_of_a_path_only_the_last_part_is_told(said: str, told: str) -> None:
    why = disclosed(Why(code="a.b", sentence=said, evidence={"detail": said}, next_step=said))
    assert (why.code, why.sentence, why.evidence, why.next_step) == ("a.b", told, {"detail": told}, told)


def test_a_home_with_a_space_in_its_name_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/srv/Alice Smith"))
    assert "Alice" not in disclosed(Why(code="a.b", sentence="No /srv/Alice Smith/cache/x here.")).sentence


def test_of_long_evidence_the_end_is_told() -> None:
    told = disclosed(Why(code="a.b", sentence="", evidence={"stderr": "x" * 5000 + "the reason"})).evidence["stderr"]
    assert told.endswith("the reason") and len(told) == KEPT_LETTERS
