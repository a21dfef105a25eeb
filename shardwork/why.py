"""Why: the reason behind every wait, refusal, failure and price, as a person can act on it.

Owns the record only. The wire form is `shardwork.v1.Why` (mapped in `shardwork.wire`); errors carry one
(`shardwork.errors`); the coordinator stores one per job, shard and refusal; the CLI prints it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    #: stable, lower-case, dotted; scripts may match on it: "shard.waiting_for_worker"
    code: str
    #: one plain sentence that ends with a full stop
    sentence: str
    #: the facts behind it, as text: {"file": "train.jsonl", "line": "7"}
    evidence: Mapping[str, str] = field(default_factory=dict[str, str])
    #: what to do about it; empty when there is nothing to do
    next_step: str = ""

    def render(self) -> str:
        """One readable line: the sentence, its evidence in brackets, then the next step."""
        facts = ", ".join(f"{key}: {value}" for key, value in self.evidence.items())
        middle = f" ({facts})" if facts else ""
        tail = f" {self.next_step}" if self.next_step else ""
        return f"{self.sentence}{middle}{tail}"

    def to_json(self) -> str:
        """Stable JSON text, the form in which the store keeps it."""
        return json.dumps(
            {
                "code": self.code,
                "sentence": self.sentence,
                "evidence": dict(self.evidence),
                "next_step": self.next_step,
            },
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str) -> Why:
        raw = json.loads(text)
        return cls(code=raw["code"], sentence=raw["sentence"], evidence=raw["evidence"], next_step=raw["next_step"])
