"""A reader who does what a page says: writes its files, types its commands, and puts in what only he can know.

Stand-ins, because a page can't name them: JOIN, ID (the newest job), WORKER and ARTIFACT (the newest ones), the
addresses of the coordinator's two ports. A plan that a page shows is made smaller, so that it is over in seconds. Used
by `test_pages` and by bench/newcomer.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..e2e import models
from ..house.blocks import Block
from ..house.tree import ROOT
from .shell import BIN, Ran, Shell

#: what a page's job does instead, so that it takes seconds
SMALLER = (
    (r"(\brounds: )\d+", r"\g<1>1"),
    (r"(\bshards_per_round: )\d+", r"\g<1>2"),
    (r"(\binner_steps: )\d+", r"\g<1>2"),
)
#: commands that are somebody else's to check: a target of the Makefile (tests/house/test_blocks.py), an activation
ELSEWHERE = re.compile(r"^(make |\. |JOIN=)")
#: these ask on a terminal, and a test has none
ASKING = re.compile(r"^shardwork (init|job (submit|topup)|wallet withdraw)\b")


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SHARDWORK_")}
    path = f"{BIN}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "SHARDWORK_HOME": str(home), "HF_HUB_OFFLINE": "1", "COLUMNS": "100", "NO_COLOR": "1"}


def prepare(folder: Path) -> None:
    """What pages take for granted: a checkout's pages, models, rows."""
    folder.mkdir(parents=True, exist_ok=True)
    models.write_gpt2(folder / "models" / "tiny")
    # what a judge is asked is longer than two answers
    models.write_gpt2(folder / "models" / "judge", seed=8, positions=1024)
    models.write_chat(folder / "data" / "train.jsonl")
    for name in ("README.md", "GLOSSARY.md", "ARCHITECTURE.md"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("*.py", "*.svg", "__pycache__"))


@dataclass(slots=True)
class Reader:
    shell: Shell
    #: where the things of each role lie; the quickstart's requester and operator are one
    homes: dict[str, str]
    web: str = ""
    #: the plans that a page shows take seconds
    made_smaller: bool = True
    done: list[Ran] = field(default_factory=list[Ran])

    def follow(self, blocks: list[Block]) -> str:
        """Does what the blocks say, up to the first command that ends otherwise than its page says: what it printed."""
        role = ""
        for block in blocks:
            if block.role != role and block.is_run:
                role = block.role
                self.shell.set("SHARDWORK_HOME", self.homes[role])
            if block.title:
                self._write(block)
            elif block.is_run and (wrong := self._type(block)):
                return wrong
        return ""

    def _write(self, block: Block) -> None:
        path = self.shell.folder / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.put_in(self._sized(block.text)) + "\n")

    def _type(self, block: Block) -> str:
        for number, command in enumerate(block.commands):
            if ELSEWHERE.match(command):
                continue
            ran = self.shell.run(self.put_in(command))
            self.done.append(ran)
            self._learn(ran)
            expected = block.exit_code if number == len(block.commands) - 1 else 0
            if ran.exit_code != expected:
                return f"{block.page}:{block.line} `{ran.command}` left with {ran.exit_code}:\n{ran.output}"
        return ""

    def _learn(self, ran: Ran) -> None:
        """What a reader sees in what was printed: the join line and the web address; and his job file is made small."""
        joins = [line for line in ran.output.splitlines() if line.startswith('{"join"')]
        if " serve " in ran.command and joins:
            said = json.loads(joins[0])
            self.web = said["web"].removeprefix("http://")
            self.shell.set("JOIN", said["join"])
        for path in self.shell.folder.glob("*.yaml"):
            path.write_text(self._sized(path.read_text()))

    def _sized(self, text: str) -> str:
        return smaller(text) if self.made_smaller else text

    def put_in(self, text: str) -> str:
        for word, ask in self._stand_ins().items():
            if re.search(rf"\b{word}\b", text):
                text = re.sub(rf"\b{word}\b", ask(), text)
        if ASKING.match(text) and "--yes" not in text:
            text += " --yes"
        if " serve " in text:
            return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:0", text)
        return text.replace("127.0.0.1:7071", self.web)

    def _stand_ins(self) -> dict[str, Callable[[], str]]:
        return {
            "ID": lambda: self._newest("job list", "jobs"),
            "ARTIFACT": lambda: self._newest("artifact list", "artifacts"),
        }

    def _newest(self, command: str, key: str) -> str:
        return str(json.loads(self.shell.value(f"shardwork {command} --json"))[key][0]["id"])


def smaller(text: str) -> str:
    for pattern, instead in SMALLER:
        text = re.sub(pattern, instead, text)
    return text
