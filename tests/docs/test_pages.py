"""Every command that a page shows is run, in the page's order, against a coordinator and workers of this machine.

The quickstart comes first, from its own commands, and gates every change; its network is what the readers of the other
pages meet, in the night. A page that has commands is found by itself: `tests/house/blocks.py` says how it marks them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..house.blocks import Block, pages
from .reader import Reader, environment, prepare
from .shell import Shell

PAGES: dict[str, list[Block]] = {name: found for name, found in pages() if any(block.is_run for block in found)}
QUICKSTART = "docs/quickstart.md"
#: a page is a dozen processes one after the other, each with its imports
pytestmark = pytest.mark.timeout(600)
#: more than every page together spends
SATS = 100_000


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


@pytest.mark.nightly
@pytest.mark.parametrize("page", [name for name in PAGES if name != QUICKSTART])
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
