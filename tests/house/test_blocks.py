"""Every shell block of a written page is run by the tests, or says why it can't be."""

from __future__ import annotations

import re

from .blocks import blocks, pages, unclear
from .tree import ROOT, assert_none


def test_every_shell_block_is_run_or_says_why_not() -> None:
    assert_none(line for _, found in pages() for line in unclear(found))


def test_pages_have_commands_that_are_run() -> None:
    run = [block for _, found in pages() for block in found if block.is_run]
    assert sum(len(block.commands) for block in run) > 20
    assert {"README.md", "docs/quickstart.md"} <= {block.page for block in run}


def test_targets_that_pages_name_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        word
        for _, found in pages()
        for block in found
        if block.is_shell
        for line in block.text.splitlines()
        if (words := line.removeprefix("$ ").split("#")[0].split()) and words[0] == "make"
        for word in words[1:2]
        if word.isalpha()
    }
    assert named and named <= targets


def test_commands_are_read_without_prompts_remarks_and_output() -> None:
    text = "```console\n$ export A=1\n$ shardwork job \\\n    list   # all\nid  state\n```\n"
    (block,) = blocks("docs/x.md", text)
    assert block.is_run and block.line == 1
    assert block.commands == ["export A=1", "shardwork job     list"]


def test_marks_count_for_the_next_block_only() -> None:
    text = (
        "<!-- not run: needs a cluster -->\n```sh\nhelm install x\n```\n<!-- exit: 3 -->\n```console\n$ false\n```\n"
        "<!-- as: provider -->\nText.\n\n```console\n$ true\n```\n"
    )
    first, second, third = blocks("docs/x.md", text)
    assert (first.reason, first.is_run, unclear([first])) == ("needs a cluster", False, [])
    assert (second.exit_code, second.role, second.is_run) == (3, "requester", True)
    assert (third.exit_code, third.role) == (0, "provider")


def test_a_block_that_is_neither_run_nor_marked_is_found() -> None:
    fenced = "```bash\nshardwork job list\n```\n"
    bare = "```\nkubectl get pods\n```\n"
    indented = "Do this:\n\n    pip install x\n\nDone.\n"
    promptless = "```console\nshardwork job list\n```\n"
    for text in (fenced, bare, indented, promptless):
        assert len(unclear(blocks("docs/x.md", text))) == 1
    assert unclear(blocks("docs/x.md", "```python\nimport shardwork\n```\n\n    a plain quotation\n")) == []


def test_indented_commands_are_run_in_the_readme() -> None:
    (block,) = blocks("README.md", "Now:\n\n    shardwork job list   # all\n\n    shardwork job show ID\n\nText.\n")
    assert block.is_run and block.commands == ["shardwork job list", "shardwork job show ID"]


def test_a_titled_block_is_a_file() -> None:
    (block,) = blocks("docs/x.md", '```yaml title="job.yaml"\nname: x\n```\n')
    assert (block.title, block.text, block.is_shell) == ("job.yaml", "name: x", False)
