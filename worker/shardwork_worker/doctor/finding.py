"""A finding: one check's health with its reason: cause, evidence, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shardwork.why import Why

from ..status import why_to_json


class Health(StrEnum):
    OK = "ok"
    #: works, but the owner should know
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    health: Health
    why: Why

    def to_json(self) -> dict[str, Any]:
        return {"check": self.check, "health": self.health.value, **(why_to_json(self.why) or {})}


def finding(check: str, health: Health, sentence: str, next_step: str = "", **evidence: object) -> Finding:
    facts = {key: str(value) for key, value in evidence.items()}
    code = f"doctor.{check.partition(' ')[0].replace('-', '_')}_{health.value}"
    return Finding(check, health, Why(code=code, sentence=sentence, evidence=facts, next_step=next_step))
