"""Recipe `count` among liars: the light check refuses what can't be, and a join never fails for what a worker sent."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shardwork.errors import InvalidInput
from shardwork.recipes import recipe
from shardwork.recipes.base import Computed, Reported, Trainer
from shardwork.recipes.orders import CountOrder, JoinOrder, SplitOrder

COUNT = recipe("count")
MAP, JOIN = CountOrder(top=5).canonical_json(), JoinOrder(recipe="count").canonical_json()
TEXTS = ("one two two Straße", "it's İt ΑΣ three\n\n three x1 _ 2")


@dataclass
class Place:
    """A Context over plain folders."""

    folder: Path
    inputs: Mapping[str, Path]
    seed: bytes = b""
    told: list[float] = field(default_factory=list[float])

    @property
    def trainer(self) -> Trainer:
        raise AssertionError("counting needs no trainer")

    def output(self, name: str) -> Path:
        (self.folder / name).mkdir(parents=True)
        return self.folder / name

    def progress(self, fraction: float, *, loss: float | None = None) -> None:
        self.told.append(fraction)


def counted(folder: Path, text: str) -> Computed:
    """An honest worker's result over a part with this text, which lies beside it."""
    (folder / "part").mkdir(parents=True)
    (folder / "part" / "lines.txt").write_text(text, encoding="utf-8")
    return COUNT.compute("map", MAP, Place(folder, {"part": folder / "part"}))


def joined(folder: Path, lie: bytes | None = None) -> tuple[dict[str, object], dict[str, float]]:
    """The report over two parts, the second of which a worker may have lied about."""
    inputs: dict[str, Path] = {}
    for index, text in enumerate(TEXTS):
        inputs[f"output-{index}"] = counted(folder / str(index), text).outputs["counts"]
        inputs[f"part-{index}"] = folder / str(index) / "part"
    if lie is not None:
        (inputs["output-1"] / "counts.json").write_bytes(lie)
    done = COUNT.compute("join", JOIN, Place(folder / "join", inputs))
    report = json.loads((done.outputs["report"] / "counts.json").read_text(encoding="utf-8"))
    return report, dict(done.metrics)


def test_honest_counts_are_taken_as_they_are(tmp_path: Path) -> None:
    report, metrics = joined(tmp_path)
    assert "parts_recounted" not in report and metrics["recounted"] == 0
    assert report["words"] == metrics["words"] == 12
    assert list(report["counts"].items())[:2] == [("three", 2), ("two", 2)]  # type: ignore[attr-defined]


LIES: Mapping[str, bytes] = {
    "nothing": b"",
    "deep": b"[" * 500,
    "wide": b"[" + b"{}," * 100 + b"{}]",
    "a list": b"[1, 2]",
    "text": b'"one"',
    "text for a number": b'{"one": "1"}',
    "a fraction": b'{"one": 1.5}',
    "not a number": b'{"one": NaN}',
    "negative": b'{"one": -1}',
    "none": b'{"one": 0}',
    "endless digits": b'{"one": ' + b"9" * 300 + b"}",
    "more than the part has": b'{"one": 1000}',
    "no word": b'{"one two": 1}',
    "an empty word": b'{"": 1}',
    "twice": b'{"one": 1, "one": 1}',
    "unsorted": b'{"two": 1, "one": 1}',
    "more behind it": b'{"one": 1}}',
    "a line end": b'{"one": 1}\n',
    "cut short": b'{"one": 1, ',
    "another case of the same": b'{"one": 1,"two": 1}',
    "no UTF-8": b'{"\xff": 1}',
    "a byte-order mark": b'\xef\xbb\xbf{"one": 1}',
    "large": b"{" + b'"a": 1, ' * 1_000,
}


@pytest.mark.parametrize("name", LIES)
def test_counts_that_no_honest_worker_writes_are_counted_again(tmp_path: Path, name: str) -> None:
    honest, _ = joined(tmp_path / "honest")
    report, metrics = joined(tmp_path / "lied", LIES[name])
    assert report.pop("parts_recounted") == [1] and metrics["recounted"] == 1
    assert report == honest


def test_counts_that_are_missing_are_counted_again(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "lines.txt").write_text("one")
    inputs = {"output-0": tmp_path / "gone", "part-0": tmp_path / "part"}
    done = COUNT.compute("join", JOIN, Place(tmp_path / "join", inputs))
    assert done.metrics["words"] == done.metrics["recounted"] == 1


@pytest.mark.parametrize("text", ["", " \n", "a", "a b c d e f g h i j k l m n", "ȺȾ " * 40, "a1 " * 5_000])
def test_whatever_the_text_its_honest_counts_pass_the_check_and_the_join(tmp_path: Path, text: str) -> None:
    done = counted(tmp_path, text)
    size = (done.outputs["counts"] / "counts.json").stat().st_size
    assert COUNT.check("map", MAP, reported(size, **done.metrics)).accepted
    inputs = {"output-0": done.outputs["counts"], "part-0": tmp_path / "part"}
    assert COUNT.compute("join", JOIN, Place(tmp_path / "join", inputs)).metrics["recounted"] == 0


@pytest.mark.parametrize(("rows", "parts"), [(1, 1), (1, 3), (7, 3), (3, 7), (64, 64), (1_000, 7)])
def test_line_i_goes_to_part_i_times_parts_over_lines(tmp_path: Path, rows: int, parts: int) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("".join(f"w{row}\n" for row in range(rows)))
    split = COUNT.compute(
        "split", SplitOrder(parts=parts).canonical_json(), Place(tmp_path, {"data": tmp_path / "data"})
    )
    found = [(split.outputs[f"part-{index}"] / "lines.txt").read_text().split() for index in range(parts)]
    assert found == [[f"w{row}" for row in range(rows) if row * parts // rows == index] for index in range(parts)]


def test_the_most_parts_need_no_more_files_than_a_process_may_open(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("x\n" * 200)
    place = Place(tmp_path, {"data": tmp_path / "data"})
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/dev/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(highest + 50, before[0]), before[1]))
    try:
        assert len(COUNT.compute("split", SplitOrder(parts=200).canonical_json(), place).outputs) == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def reported(size: int, **metrics: float) -> Reported:
    files = {"counts": {"counts.json": size}}
    return Reported(outputs={"counts": "id"}, output_bytes={"counts": size}, output_files=files, metrics=metrics)


@pytest.mark.parametrize(
    ("size", "metrics"),
    [
        (100, {"words": 5.5, "distinct": 5.0}),
        (100, {"words": 5.0, "distinct": 4.5}),
        (100, {"words": 3.0, "distinct": 4.0}),
        (100, {"words": float("inf"), "distinct": 4.0}),
        (100, {"words": float("nan"), "distinct": float("nan")}),
        (100, {"words": 5.0}),
        (100, {"words": 5.0, "distinct": 5.0, "more": 1.0}),
        (39, {"words": 5.0, "distinct": 5.0}),
        (2, {"words": 5.0, "distinct": 0.0}),
        (3, {"words": 0.0, "distinct": 0.0}),
        (0, {"words": 0.0, "distinct": 0.0}),
    ],
)
def test_metrics_that_no_such_file_can_have_are_refused(size: int, metrics: dict[str, float]) -> None:
    why = COUNT.check("map", MAP, reported(size, **metrics)).why
    assert why is not None and why.code == "check.metrics"


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("a.jsonl", "[1]\n", "count.bad_row"),
        ("a.jsonl", '{"prompt": "x"}\n', "count.bad_row"),
        ("a.jsonl", '{"text": 5}\n', "count.bad_row"),
        ("a.jsonl", "{" * 100_000, "count.bad_row"),
        ("a.txt", "x" * 70_000, "count.long_line"),
    ],
)
def test_data_that_can_not_be_split_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, code: str
) -> None:
    if code == "count.long_line":
        monkeypatch.setattr("shardwork.recipes.count.MOST_LETTERS", 65_536)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text(f'{{"text": "fine"}}\n{text}')
    with pytest.raises(InvalidInput) as caught:
        COUNT.compute("split", SplitOrder(parts=2).canonical_json(), Place(tmp_path, {"data": tmp_path / "data"}))
    assert caught.value.code == code
    assert caught.value.why.evidence == {"file": name, "line": "2"}
