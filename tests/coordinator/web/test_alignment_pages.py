"""What jobs of alignment have beside others' pages: the loop, the report of votes, and answers to read side by side."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

from shardwork.artifact import LEAF_BYTES
from shardwork.feedback import paging
from shardwork_coordinator.artifacts import ArtifactStore
from shardwork_coordinator.records import JobState, WebRole
from shardwork_coordinator.web.dashboard.alignment.reading import Lines
from shardwork_coordinator.web.server import Site

from .alignment_scene import HOSTILE, ROWS, aligned
from .scene import Scene
from .visitor import visitor


def text(page: str) -> str:
    """As it is read: without tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


async def test_a_loop_is_told_time_by_time(tmp_path: Path) -> None:
    scene = Scene()
    job, contents = await aligned(scene, tmp_path)
    async with visitor(scene.engine, site=Site(contents=contents)) as client:
        page = (await client.get(f"/jobs/{job}")).text
    told = text(page)
    assert "1 done 0.25 → 0.625 reward 0.031 12.5 – 38 % (30 to 46 %) 41 sat" in told
    assert "2 skipped – – – – – 0 sat Stage answers-2 was skipped" in told
    assert HOSTILE not in page


async def test_alarms_and_what_is_refused_are_told(tmp_path: Path) -> None:
    scene = Scene()
    job, contents = await aligned(scene, tmp_path)
    async with visitor(scene.engine, site=Site(contents=contents)) as client:
        told = text((await client.get(f"/jobs/{job}")).text)
    assert "What rings policy-1 The reward of stage policy-1 rose, and its answers lose" in told
    assert "win rate 38.0% (30.0% to 46.0%) against start" in told and "Next: Read answers of both." in told
    assert "policy-1 6 → 5 of 7 0 → 1 of 6 0 → 0 of 3" in told


async def test_a_job_without_a_loop_or_alarms_has_no_such_parts() -> None:
    scene = Scene()
    job = await scene.job("plain", JobState.RUNNING)
    async with visitor(scene.engine) as client:
        page = (await client.get(f"/jobs/{job}")).text
    assert not re.search(r"What rings|safety set|time by time|judge and blend", page)


async def test_people_judge_and_blend_are_compared_by_a_real_report(tmp_path: Path) -> None:
    """`reported` is made by what makes the reports of consensus: a page that reads other keys would show nothing."""
    scene = Scene()
    job, contents = await aligned(scene, tmp_path)
    async with visitor(scene.engine, site=Site(contents=contents)) as client:
        page = (await client.get(f"/jobs/{job}")).text
    told = text(page)
    assert "people 40 95 % (83 to 99 %) 10 sat 10 min 3 s 400 sat" in told
    assert "judge 35 89 % (74 to 95 %) 1.142 sat 1 min 0.1 s 40 sat" in told
    assert "blend 40 95 % (83 to 99 %) 11 sat 11 min 1.5 s 440 sat" in told
    assert "People with each other alpha 0.78 40 pairs Judge with people 83 % (67 to 92 %) 35 pairs" in told
    assert "Judge contradicts itself in the other order 12 % (5 to 26 %) 40 pairs" in told
    assert "tuned 1037 944 to 1131 160" in told and "61 % (47 to 73 %) 97, 63, 0" in told
    assert HOSTILE not in page
    # the dearest and the slowest fill their bars
    assert page.count('<rect width="100.00" height="8"/>') == 2


async def test_the_page_stays_without_the_bytes_of_reports(tmp_path: Path) -> None:
    scene = Scene()
    job, _ = await aligned(scene, tmp_path)
    async with visitor(scene.engine) as client:
        answer = await client.get(f"/jobs/{job}")
        gone = await client.get(f"/jobs/{job}/samples/answers-1.rows")
    assert answer.status_code == 200 and "People, judge and blend" not in answer.text
    assert gone.status_code == 404


async def test_answers_are_read_page_by_page_and_none_is_lost(tmp_path: Path) -> None:
    scene = Scene()
    job, contents = await aligned(scene, tmp_path)
    async with visitor(scene.engine, site=Site(contents=contents)) as client:
        assert f'href="/jobs/{job}/samples/answers-1.rows"' in (await client.get(f"/jobs/{job}")).text
        path, seen = f"/jobs/{job}/samples/answers-1.rows", list[str]()
        while path:
            page = (await client.get(path)).text
            assert HOSTILE not in page
            seen += re.findall(r"<code>(p\d+)</code>", page)
            after = re.search(r'<a href="([^"]+)" rel="next">', page)
            path = html.unescape(after[1]) if after else ""
        assert seen == [f"p{number}" for number in range(ROWS)]
        found = text((await client.get(f"/jobs/{job}/samples/answers-1.rows?q=ABOUT+44")).text)
        assert "Say something about 44." in found and "Say something about 43." not in found
        assert "No prompt here has these words" in (await client.get(f"/jobs/{job}/samples/answers-1.rows?q=zzz")).text


async def test_two_versions_answer_the_same_prompts_side_by_side(tmp_path: Path) -> None:
    scene = Scene()
    job, contents = await aligned(scene, tmp_path)
    async with visitor(scene.engine, site=Site(contents=contents)) as client:
        page = text((await client.get(f"/jobs/{job}/samples/answers-1.rows?beside=after.rows")).text)
    for number in range(20):
        assert re.search(rf"first says {number} .*second says {number} ", page), number
    assert "first · answers-1.rows" in page and "second · after.rows" in page


async def test_preferences_are_shown_with_what_was_chosen(tmp_path: Path) -> None:
    scene = Scene()
    job, contents = await aligned(scene, tmp_path)
    async with visitor(scene.engine, site=Site(contents=contents)) as client:
        page = text((await client.get(f"/jobs/{job}/samples/votes-1.rows")).text)
    assert (
        "confidence 75 %, 4 votes system: Be brief. user: question 0 chosen the better one rejected the worse" in page
    )
    assert page.count("the better one") == 3


async def test_only_operators_read_what_was_written(tmp_path: Path) -> None:
    scene = Scene()
    job, contents = await aligned(scene, tmp_path)
    path = f"/jobs/{job}/samples/answers-1.rows"
    async with visitor(scene.engine, WebRole.VIEWER, name="tim", site=Site(contents=contents)) as client:
        refused = await client.get(path)
        assert refused.status_code == 403 and "first says" not in refused.text
        assert path not in (await client.get(f"/jobs/{job}")).text
    async with visitor(scene.engine, None, site=Site(contents=contents)) as client:
        assert (await client.get(path)).headers["location"].startswith("/login")
    async with visitor(scene.engine, site=Site(contents=contents)) as client:
        for wrong in ("votes-1.report", "..%2f..%2fetc", "nothing.rows", "answers-1.rows%00"):
            assert (await client.get(f"/jobs/{job}/samples/{wrong}")).status_code in (400, 404), wrong
        for query in ("at=99999999", "at=-1", "at=7", "beside=nothing", "at=%C2%B2"):
            assert (await client.get(f"{path}?{query}")).status_code == 200, query


@pytest.mark.parametrize(
    "row",
    [
        '{"prompt": "\\ud800", "answers": [{"model": "\\udfff", "text": "\\ud800"}]}',
        '{"prompt": "p", "answers": [{"text": "t", "tokens": 1e999, "logprob": 1' + "0" * 400 + "}]}",
        '{"prompt": "p", "chosen": 1, "rejected": null, "confidence": NaN, "votes": true, "prompt_id": {"a": [1]}}',
    ],
    ids=["half a letter", "endless numbers", "other kinds"],
)
async def test_odd_rows_are_shown_and_break_no_page(tmp_path: Path, row: str) -> None:
    scene = Scene()
    job, contents = await aligned(scene, tmp_path, odd=row + "\nno JSON\n")
    async with visitor(scene.engine, site=Site(contents=contents)) as client:
        page = await client.get(f"/jobs/{job}/samples/odd.rows")
    assert page.status_code == 200 and page.text.count('class="card sample"') == 1
    assert "rows.jsonl:2 The line at byte" in text(page.text)


async def test_other_rows_of_a_prompt_do_not_hide_those_of_the_next(tmp_path: Path) -> None:
    """A page beside an output with several rows of each prompt, as preferences have, found only the first prompts."""
    scene = Scene()
    rows = [
        {"prompt_id": f"p{number}", "chosen": f"better {number} {again}", "rejected": "worse"}
        for number in range(ROWS)
        for again in range(4)
    ]
    job, contents = await aligned(scene, tmp_path, odd="".join(json.dumps(row) + "\n" for row in rows))
    async with visitor(scene.engine, site=Site(contents=contents)) as client:
        page = text((await client.get(f"/jobs/{job}/samples/answers-1.rows?beside=odd.rows")).text)
    for number in range(20):
        assert f"better {number} 0" in page, number
    assert "Not every prompt was found" not in page


async def test_a_page_says_when_the_other_output_is_longer_than_it_may_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene()
    job, contents = await aligned(scene, tmp_path)
    monkeypatch.setattr(paging, "MOST_READ_BYTES", 4_000)
    async with visitor(scene.engine, site=Site(contents=contents)) as client:
        page = text((await client.get(f"/jobs/{job}/samples/answers-1.rows?beside=after.rows")).text)
    assert "Not every prompt was found in after.rows" in page and "first says 1 " in page


def test_lines_across_leaves_are_whole(tmp_path: Path) -> None:
    contents = ArtifactStore.open(tmp_path / "artifacts")
    (tmp_path / "rows").mkdir()
    rows = [{"number": number, "filling": "é" * 90_000} for number in range(20)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert len(text.encode()) > 3 * LEAF_BYTES
    (tmp_path / "rows" / "rows.jsonl").write_text(text, encoding="utf-8")
    lines = Lines(contents, contents.put_folder(tmp_path / "rows").id)
    start, seen = 0, list[int]()
    while True:
        found = lines.page(start, 3, lambda _: True)
        seen += [row["number"] for row in found.rows]
        if found.more is None:
            break
        start = found.more
    assert seen == list(range(20))
