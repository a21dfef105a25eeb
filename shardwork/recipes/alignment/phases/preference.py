"""Preference: a row that reward and dpo learn from, as every stage that compares answers writes it.

Owns that prompt and answers are of one kind: beside a conversation an answer is the assistant's message. Pure.
"""

from __future__ import annotations

from typing import Any

from ....dataset.row import Message, Part


def preference_row(prompt: Part, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    """`more`: prompt_id, confidence, votes."""
    return {"prompt": prompt, "chosen": _said(prompt, chosen), "rejected": _said(prompt, rejected), **more}


def _said(prompt: Part, answer: str) -> Part:
    message: Message = {"role": "assistant", "content": answer}
    return answer if isinstance(prompt, str) else [message]
