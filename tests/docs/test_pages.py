"""Every command that a page shows is run, in the page's order, against a coordinator and workers of this machine.

The quickstart comes first, from its own commands; its network is what the other pages' readers meet. A page that has
commands is found by itself: `tests/house/blocks.py` says how a page marks them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..house.blocks import Block, pages
from .reader import Reader, environment, prepare
from .shell import Shell

PAGES: dict[str, list[Block]] = {name: found for name, found in pages() if any(block.is_run for block in found)}
QUICKSTART = "docs/quickstart.md"
#: those that everybody meets first gate a change; the rest runs in the night
GATE = frozenset({"docs/journeys.md"})
#: more than every page together spends
SATS = 100_000


def _other_pages() -> list[object]:
    names = [name for name in PAGES if name != QUICKSTART]
    return [name if name in GATE else pytest.param(name, marks=pytest.mark.nightly) for name in names]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """The quickstart's own network, after the whole quickstart was done on it."""
    folder = tmp_path_factory.mktemp("network")
    prepare(folder)
    shell = Shell(folder, environment(folder / "home"))
    reader = Reader(shell, homes=dict.fromkeys(("requester", "operator"), str(folder / "home")))
    try:
        wrong = reader.follow(PAGES[QUICKSTART])
        assert not wrong, wrong
        assert shell.run(f"shardwork wallet deposit {SATS}").exit_code == 0
        yield reader
    finally:
        shell.end()


def test_the_quickstart_ends_with_a_model_that_loads(network: Reader) -> None:
    said = {ran.command.split(" --")[0]: ran.output for ran in network.done}
    assert (network.shell.folder / "out" / "pretrain.model" / "model.safetensors").is_file()
    assert "succeeded" in said["shardwork job submit job.yaml"]
    assert "loads           yes" in said["shardwork job serve-check out/pretrain.model"]
    assert said["shardwork-coordinator ledger check"].startswith("balanced")


@pytest.mark.parametrize("page", _other_pages())
def test_every_command_of_the_page_does_what_it_says(page: str, network: Reader) -> None:
    folder = network.shell.folder / "pages" / page.replace("/", "-").removesuffix(".md")
    prepare(folder)
    homes = {**network.homes, "provider": str(folder / "machine")}
    shell = Shell(folder, environment(folder / "machine"))
    shell.set("JOIN", network.shell.value('echo "$JOIN"'))
    try:
        wrong = Reader(shell, homes=homes, web=network.web).follow(PAGES[page])
        assert not wrong, wrong
    finally:
        shell.end()
