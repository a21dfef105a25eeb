"""One builder a format: an object whose format is known becomes a Row, or the first problem that it has.

Owns what each format asks of its values. Recognising the format is `rows`; messages are `messages`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ...problem import Problem
from ..line import Line, empty, kind, problem, wrong_type
from ..row import KEYS, OPTIONAL_KEYS, Format, Message, Part, Row, reads
from .judged import answers, number, row_id, truth
from .messages import conversation, sharegpt, tools

Builder = Callable[[Line, dict[str, Any]], "Row | Problem"]


def build(line: Line, found: Format, value: dict[str, Any]) -> Row | Problem:
    """The row of this format. Text is a prompt to a recipe that asks for prompts."""
    if found is Format.TEXT and reads(line.origin.recipe, Format.PROMPT):
        text = _text(line, value)
        return text if isinstance(text, Problem) else text_as_prompt(text, _others(value, "text"))
    return _BUILDERS[found](line, value)


def _ignored(value: dict[str, Any], read: Format) -> tuple[str, ...]:
    known = KEYS[read] + OPTIONAL_KEYS[read]
    return tuple(key for key in value if key not in known) if len(value) > len(KEYS[read]) else ()


def _text(line: Line, value: dict[str, Any]) -> Row | Problem:
    text = value["text"]
    if not isinstance(text, str):
        return wrong_type(line, "text", "a string", text)
    if not text.strip():
        return empty(line, "text")
    return Row(line.file, line.number, Format.TEXT, text=text, ignored=_ignored(value, Format.TEXT))


def _messages(line: Line, value: dict[str, Any]) -> Row | Problem:
    return _talk(line, value, Format.MESSAGES, conversation(line, "messages", value["messages"]))


def _sharegpt(line: Line, value: dict[str, Any]) -> Row | Problem:
    messages = sharegpt(line, "conversations", value["conversations"])
    system = value.get("system")
    if isinstance(messages, Problem) or not system:
        return _talk(line, value, Format.SHAREGPT, messages)
    if not isinstance(system, str):
        return wrong_type(line, "system", "a string", system)
    return _talk(line, value, Format.SHAREGPT, [{"role": "system", "content": system}, *messages])


def _talk(line: Line, value: dict[str, Any], read: Format, messages: list[Message] | Problem) -> Row | Problem:
    given = tools(line, value)
    if isinstance(messages, Problem):
        return messages
    if isinstance(given, Problem):
        return given
    if not any(message["role"] == "assistant" for message in messages):
        answerer = "role assistant" if read is Format.MESSAGES else "from gpt"
        fix = f"Add the answer as a message with {answerer}."
        return problem(line, KEYS[read][0], "data.no_answer", "No message is by the assistant.", fix)
    return Row(
        line.file,
        line.number,
        Format.MESSAGES,
        messages=tuple(messages),
        tools=given,
        ignored=_ignored(value, read),
        written=None if read is Format.MESSAGES else read,
    )


def _pair(line: Line, value: dict[str, Any]) -> Row | Problem:
    if isinstance(value.get("label"), bool):
        sentence = "This is a row of unpaired preferences: `label` says whether the completion is a good one."
        fix = "Keep the rows whose label is true and remove the key, or use the recipe dpo with params.loss: kto."
        return problem(line, "label", "data.wrong_format", sentence, fix)
    given, parts = tools(line, value), _parts(line, ("prompt", "completion"), value)
    if isinstance(given, Problem):
        return given
    if isinstance(parts, Problem):
        return parts
    return Row(
        line.file,
        line.number,
        Format.PROMPT_COMPLETION,
        prompt=parts[0],
        completion=parts[1],
        tools=given,
        ignored=_ignored(value, Format.PROMPT_COMPLETION),
    )


def _preference(line: Line, value: dict[str, Any]) -> Row | Problem:
    """TRL's preference rows: chosen and rejected with a prompt of their own, or with the prompt as their beginning."""
    given, answers = tools(line, value), _parts(line, ("chosen", "rejected"), value)
    if isinstance(given, Problem):
        return given
    if isinstance(answers, Problem):
        return answers
    chosen, rejected = answers
    if not chosen:
        return empty(line, "chosen")
    if chosen == rejected:
        fix = "Remove the row: it says nothing about which answer is better."
        return problem(line, "rejected", "data.no_preference", "`chosen` and `rejected` are the same.", fix)
    silent = next((name for name, part in (("chosen", chosen), ("rejected", rejected)) if not _answers(part)), None)
    if silent is not None:
        fix = "End it with the assistant's message."
        return problem(line, silent, "data.no_answer", f"{silent!r} does not end with the assistant.", fix)
    prompt = _prompt(line, value.get("prompt"), chosen)
    if isinstance(prompt, Problem):
        return prompt
    sure = number(line, "confidence", value.get("confidence", 1.0))
    if isinstance(sure, Problem):
        return sure
    if not 0.5 <= sure <= 1:
        sentence = f"`confidence` is how likely it is that `chosen` is better, from 0.5 to 1, but it is {sure:g}."
        return problem(line, "confidence", "data.bad_value", sentence, "Correct it, or swap the two answers.")
    return Row(
        line.file,
        line.number,
        Format.PREFERENCE,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        tools=given,
        value=sure,
        prompt_id=row_id(value),
        ignored=_ignored(value, Format.PREFERENCE),
    )


def _prompted(line: Line, value: dict[str, Any]) -> Row | Problem:
    """A question, with every key that the row has beside it."""
    asked, given = _question(line, value["prompt"]), tools(line, value)
    if isinstance(asked, Problem):
        return asked
    if isinstance(given, Problem):
        return given
    extra = _others(value, "prompt", "tools")
    return Row(line.file, line.number, Format.PROMPT, prompt=asked, tools=given, prompt_id=row_id(value), extra=extra)


def text_as_prompt(row: Row, extra: dict[str, Any]) -> Row:
    """A row of text where prompts are asked for."""
    named = row_id(extra)
    return Row(row.file, row.line, Format.PROMPT, prompt=row.text, written=Format.TEXT, prompt_id=named, extra=extra)


def _question(line: Line, value: object) -> Part | Problem:
    """Text, or a conversation that waits for the assistant."""
    if isinstance(value, str):
        return value if value.strip() else empty(line, "prompt")
    if not isinstance(value, list):
        return wrong_type(line, "prompt", "a string or a list of messages", value)
    said = conversation(line, "prompt", cast("list[object]", value))
    if isinstance(said, Problem):
        return said
    if not any(str(message.get("content", "")).strip() for message in said):
        return empty(line, "prompt")
    if said[-1]["role"] == "assistant":
        fix = "Remove its last message, or give the row as prompt and completion."
        return problem(line, "prompt", "data.answered_prompt", "The prompt ends with the assistant's answer.", fix)
    return said


def _single(line: Line, value: dict[str, Any], found: Format, worth: float) -> Row | Problem:
    """One answer with what it is worth."""
    given, parts = tools(line, value), _parts(line, ("prompt", "completion"), value)
    if isinstance(given, Problem):
        return given
    if isinstance(parts, Problem):
        return parts
    return Row(
        line.file,
        line.number,
        found,
        prompt=parts[0],
        completion=parts[1],
        tools=given,
        value=worth,
        ignored=_ignored(value, found),
    )


def _labelled(line: Line, value: dict[str, Any]) -> Row | Problem:
    label = truth(line, "label", value["label"])
    return label if isinstance(label, Problem) else _single(line, value, Format.LABELLED, float(label))


def _scored(line: Line, value: dict[str, Any]) -> Row | Problem:
    score = number(line, "score", value["score"])
    return score if isinstance(score, Problem) else _single(line, value, Format.SCORED, score)


def _several(line: Line, value: dict[str, Any]) -> Row | Problem:
    """Answers to compare; a review by people looks at single ones."""
    asked = _question(line, value["prompt"])
    if isinstance(asked, Problem):
        return asked
    found = answers(line, "answers", value["answers"], least=1 if line.origin.recipe == "people" else 2)
    if isinstance(found, Problem):
        return found
    extra = _others(value, "prompt", "answers")
    return Row(
        line.file, line.number, Format.ANSWERS, prompt=asked, answers=found, prompt_id=row_id(value), extra=extra
    )


def _others(value: dict[str, Any], *read: str) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key not in read and item is not None}


def _prompt(line: Line, value: object, answer: Part) -> Part | Problem:
    """A preference row's own prompt, of the same kind as its answers; none is an empty one of that kind."""
    if value is None:
        return "" if isinstance(answer, str) else []
    if isinstance(answer, str):
        return value if isinstance(value, str) else wrong_type(line, "prompt", "a string, like the answers", value)
    return conversation(line, "prompt", value)


def _answers(part: Part) -> bool:
    return isinstance(part, str) or part[-1].get("role") == "assistant"


def _parts(line: Line, keys: tuple[str, str], value: dict[str, Any]) -> tuple[Part, Part] | Problem:
    """Two values of one kind: both strings, or both lists of messages. A model may have said nothing at all, which is
    an answer to reject."""
    first, second = (value[key] for key in keys)
    if isinstance(first, str) and isinstance(second, str):
        return (first, second) if second or keys[1] == "rejected" else empty(line, keys[1])
    kinds = (kind(first), kind(second))
    if kinds != ("list", "list"):
        wrong, odd = (keys[0], first) if kinds[0] not in ("string", "list") else (keys[1], second)
        return wrong_type(line, wrong, "a string or a list of messages, like the other one", odd)
    before, after = conversation(line, keys[0], first), conversation(line, keys[1], second)
    if isinstance(before, Problem):
        return before
    return after if isinstance(after, Problem) else (before, after)


def _alpaca(line: Line, value: dict[str, Any]) -> Row | Problem:
    """Text with the headings that such rows are usually shown with; with a chat template, a question and its answer."""
    if value.get("history"):
        fix = "Write the row as messages, or remove the earlier turns."
        return problem(line, "history", "data.not_built", "Alpaca rows with a history are not built yet.", fix)
    parts = {name: value.get(name) or "" for name in ("instruction", "input", "output", "system")}
    wrong = next((name for name, part in parts.items() if not isinstance(part, str)), None)
    if wrong is not None:
        return wrong_type(line, wrong, "a string", value[wrong])
    bare = next((name for name in ("instruction", "output") if not str(parts[name]).strip()), None)
    if bare is not None:
        return empty(line, bare)
    headed = [("", parts["system"]), ("### Instruction:\n", parts["instruction"]), ("### Input:\n", parts["input"])]
    prompt = "".join(f"{head}{part}\n\n" for head, part in headed if part) + "### Response:\n"
    question = "\n\n".join(str(parts[name]) for name in ("instruction", "input") if parts[name])
    asked: list[Message] = [{"role": "system", "content": parts["system"]}] if parts["system"] else []
    return Row(
        line.file,
        line.number,
        Format.PROMPT_COMPLETION,
        prompt=prompt,
        completion=str(parts["output"]),
        asked=(*asked, {"role": "user", "content": question}),
        ignored=_ignored(value, Format.ALPACA),
        written=Format.ALPACA,
    )


_BUILDERS: dict[Format, Builder] = {
    Format.TEXT: _text,
    Format.MESSAGES: _messages,
    Format.PROMPT_COMPLETION: _pair,
    Format.PREFERENCE: _preference,
    Format.ALPACA: _alpaca,
    Format.SHAREGPT: _sharegpt,
    Format.PROMPT: _prompted,
    Format.LABELLED: _labelled,
    Format.SCORED: _scored,
    Format.ANSWERS: _several,
}
