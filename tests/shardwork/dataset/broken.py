"""Broken data files, each with what the report must say about it: code, line, key and a word of the advice.

Small enough to stand here; Parquet is written when it is asked for.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .folders import turn, write_parquet

GOOD = '{"prompt": "a", "completion": "b"}'
ASKED = turn("user", "hi")
ANSWERED = turn("assistant", "x")
CHOICE = {"prompt": "p", "chosen": "good", "rejected": "bad"}


@dataclass(frozen=True, slots=True)
class Broken:
    """What the first error must be. `content` is bytes, text, rows for JSONL, or what writes the file."""

    content: bytes | str | list[Any] | Callable[[Path], object]
    code: str
    line: int | None
    key: str
    #: part of the fix
    advice: str
    name: str = "rows.jsonl"
    mapping: dict[str, str] = field(default_factory=dict[str, str])
    format: str | None = None

    def write(self, folder: Path) -> Path:
        path = folder / self.name
        content = self.content
        if callable(content):
            content(path)
        elif isinstance(content, list):
            path.write_text("".join(json.dumps(row) + "\n" for row in content), "utf-8")
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


def _two_columns_of_a_name(path: Path) -> None:
    library: Any = importlib.import_module("pyarrow")
    columns = [library.array(["kept"]), library.array(["lost without a word"])]
    table = library.Table.from_arrays(columns, names=["text", "text"])
    importlib.import_module("pyarrow.parquet").write_table(table, path)


def _parquet(**columns: list[Any]) -> Callable[[Path], object]:
    return lambda path: write_parquet(path, columns)


def _cut_parquet(path: Path) -> None:
    write_parquet(path, {"text": ["a", "b"]})
    path.write_bytes(path.read_bytes()[:-9])


def _flipped_parquet(path: Path) -> None:
    write_parquet(path, {"text": [f"row {number} of many, all different" for number in range(2000)]})
    data = bytearray(path.read_bytes())
    data[4:2000] = bytes(1996)
    path.write_bytes(data)


BYTES: dict[str, Broken] = {
    "nothing": Broken(b"", "data.empty_file", None, "", "fill it"),
    "blank lines": Broken("\n \n\t\n", "data.empty_file", None, "", "Remove it"),
    "bad utf-8": Broken(GOOD.encode() + b'\n{"text": "\xff"}\n', "data.not_utf8", 2, "", "iconv -f WINDOWS-1252"),
    "utf-16": Broken('{"text": "a"}'.encode("utf-16"), "data.not_utf8", None, "", "iconv -f UTF-16 "),
    "utf-16 without a mark": Broken('{"text": "a"}\n'.encode("utf-16-le"), "data.not_utf8", None, "", "-f UTF-16LE"),
    "utf-32": Broken('{"text": "a"}'.encode("utf-32"), "data.not_utf8", None, "", "iconv -f UTF-32"),
    "gzip": Broken(b"\x1f\x8b\x08\x00" + bytes(9), "data.file_type", None, "", "Unpack"),
    "zip": Broken(b"PK\3\4" + bytes(20), "data.file_type", None, "", "Unpack"),
    "a pdf": Broken(b"%PDF-1.7\n%\xe2\xe3", "data.file_type", None, "", "convert", name="book.txt"),
    "a picture": Broken(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "data.file_type", None, "", "holds the rows"),
    "no text at all": Broken(bytes(range(256)) * 9, "data.file_type", None, "", "holds the rows"),
    "parquet by another name": Broken(_parquet(text=["a"]), "data.file_type", None, "", ".parquet"),
    "a spreadsheet": Broken(b"PK\3\4", "data.file_type", None, "", "as CSV", name="rows.xlsx"),
    "markdown": Broken("# text", "data.file_type", None, "", ".txt", name="notes.md"),
    "packed": Broken(b"x", "data.file_type", None, "", "gunzip -k rows.jsonl.gz", name="rows.jsonl.gz"),
    "half a character": Broken('{"text": "a \\ud83d b"}\n', "data.bad_text", 1, "text", "Remove the escape"),
    "half a character in a message": Broken(
        '{"messages": [{"role": "user", "content": "\\uDE00"}]}\n', "data.bad_text", 1, "messages", "escape"
    ),
    "latin-1 text": Broken(b"caf\xe9\n\nmore", "data.not_utf8", 1, "", "Save the file as UTF-8", name="book.txt"),
}
SYNTAX: dict[str, Broken] = {
    "half a row": Broken(GOOD + '\n{"prompt": "a", \n', "data.bad_json", 2, "", "one JSON object a line"),
    "a row cut in a text": Broken(GOOD + '\n{"prompt": "a b\n' + GOOD, "data.bad_json", 2, "", "cut off"),
    "the last row cut in a text": Broken(GOOD + '\n{"prompt": "a b', "data.bad_json", 2, "", "cut off"),
    "a comma too many": Broken('{"text": "a",}\n', "data.bad_json", 1, "", "one JSON object"),
    "a json list": Broken('[{"text": "a"}]\n', "data.not_an_object", 1, "", ".json"),
    "a list over lines": Broken('[\n{"text": "a"}\n]\n', "data.bad_json", 1, "", ".json"),
    "indented": Broken('{\n  "text": "a"\n}\n', "data.bad_json", 1, "", "jq -c . FILE"),
    "a bare string": Broken('"text"\n', "data.not_an_object", 1, "", "one JSON object a line"),
    "a number": Broken("3\n", "data.not_an_object", 1, "", "one JSON object a line"),
    "a key twice": Broken('{"text": "a", "text": "b"}\n', "data.duplicate_key", 1, "text", "Keep one"),
    "too deep": Broken("[" * 100_000 + "\n", "data.bad_json", 1, "", "remove the row"),
    "deeper than any schema": Broken(
        '{"text": "a", "x": ' + "[" * 64 + "]" * 64 + "}\n", "data.bad_json", 1, "", "remove the row"
    ),
    "a tab in a string": Broken('{"text": "a\tb"}\n', "data.bad_json", 1, "", "\\t"),
    "python's quotes": Broken("{'text': 'a'}\n", "data.bad_json", 1, "", "one JSON object"),
    "old mac line ends": Broken(GOOD + "\r" + GOOD + "\r", "data.bad_json", 1, "", "Unix line ends"),
    "a list without end": Broken('[\n{"text": "a"},\n{"text": ', "data.bad_json", 3, "", "cut off", name="a.json"),
    "a list without comma": Broken('[{"text": "a"}\n{"text": "b"}]', "data.bad_json", 2, "", "Mend", name="a.json"),
    "a list with a comma at its end": Broken('[{"text": "a"},\n]', "data.bad_json", 2, "", "comma", name="a.json"),
    "two lists": Broken('[{"text": "a"}]\n[{"text": "b"}]', "data.bad_json", 2, "", "one list", name="a.json"),
    "an empty list": Broken("[]", "data.empty_file", None, "", "fill it", name="a.json"),
    "a slip in a list": Broken(
        '[\n{"text": "a"},\n{"text" "b"}\n]', "data.bad_json", 3, "", "Mend the row", name="a.json"
    ),
    "a list of strings": Broken('["a", "b"]', "data.not_an_object", 1, "", "object", name="a.json"),
    "latin-1 in a list": Broken(b'[{"text": "\xe9"}]', "data.not_utf8", 1, "", "UTF-8", name="a.json"),
    "one indented object": Broken('{\n "data": [{"text": "a"}]\n}', "data.bad_json", 1, "", "jq -c", name="a.json"),
}
KEYS: dict[str, Broken] = {
    "mistyped prompt": Broken([{"promt": "a", "completion": "b"}], "data.unknown_key", 1, "promt", "'prompt'"),
    "mistyped messages": Broken([{"mesages": [ASKED]}], "data.unknown_key", 1, "mesages", "'messages'"),
    "capital": Broken([{"Text": "a"}], "data.unknown_key", 1, "Text", "'text'"),
    "mistyped rejected": Broken([{"chosen": "a", "rejcted": "b"}], "data.unknown_key", 1, "rejcted", "'rejected'"),
    "no completion": Broken([{"prompt": "a"}], "data.missing_key", 1, "completion", "Add 'completion'"),
    "no prompt": Broken([{"completion": "a"}], "data.missing_key", 1, "prompt", "Add 'prompt'"),
    "no rejected": Broken([{"prompt": "a", "chosen": "b"}], "data.missing_key", 1, "rejected", "Add 'rejected'"),
    "no output": Broken([{"instruction": "a", "input": ""}], "data.missing_key", 1, "output", "Add 'output'"),
    "null": Broken([{"text": None}], "data.null_value", 1, "text", "Fill it"),
    "no key at all": Broken([{}], "data.unknown_format", 1, "", "`text`"),
    "records of argilla": Broken(
        [{"fields": {}, "responses": {}}], "data.unknown_format", 1, "fields", "feedback import FILE OUT --from argilla"
    ),
    "tasks of label studio": Broken(
        [{"data": {}, "annotations": []}], "data.unknown_format", 1, "data", "--from label-studio"
    ),
    "strange keys": Broken([{"foo": 1, "bar": 2}], "data.unknown_format", 1, "foo", "map your keys"),
    "tokens": Broken([{"input_ids": [1, 2]}], "data.format_not_built", 1, "input_ids", "Give the text"),
    "unpaired preferences": Broken(
        [{"prompt": "a", "completion": "b", "label": True}], "data.wrong_format", 1, "label", "label is true"
    ),
    "two formats at once": Broken(
        [{"text": "a", "prompt": "a", "completion": "b"}], "data.ambiguous", 1, "text", "`format: prompt-completion`"
    ),
    "two formats in most rows": Broken(
        [{"text": "a"}, *[{"text": "a", "instruction": "b", "output": "c"}] * 3],
        "data.ambiguous", 2, "instruction", "`format: text`",
    ),
    "formats mixed": Broken(f'{GOOD}\n{GOOD}\n{{"text": "a"}}\n', "data.mixed_formats", 3, "text", "one format"),
    "strings and conversations mixed": Broken(
        [{"prompt": "a", "completion": "b"}, {"prompt": [ASKED], "completion": [ANSWERED]}],
        "data.mixed_formats", 2, "prompt", "one kind a stage",
    ),
    "a mapped key that is not there": Broken(
        [{"question": "a", "answer": "b"}], "data.unmapped_key", 1, "anwser", "'answer'",
        mapping={"prompt": "question", "completion": "anwser"},
    ),
    "a named format that does not fit": Broken(
        [{"prompt": "a", "completions": "b"}], "data.missing_key", 1, "completion", "Rename 'completions'",
        format="prompt-completion",
    ),
}  # fmt: skip
VALUES: dict[str, Broken] = {
    "text is a number": Broken([{"text": 3}], "data.wrong_type", 1, "text", "Correct"),
    "text is empty": Broken([{"text": "  "}], "data.empty_value", 1, "text", "Fill it"),
    "completion is empty": Broken([{"prompt": "a", "completion": ""}], "data.empty_value", 1, "completion", "Fill it"),
    "completion is a list": Broken(
        [{"prompt": "a", "completion": [ANSWERED]}], "data.wrong_type", 1, "completion", "Correct"
    ),
    "messages is a string": Broken([{"messages": "hi"}], "data.wrong_type", 1, "messages", "Correct"),
    "messages is empty": Broken([{"messages": []}], "data.empty_value", 1, "messages", "Fill it"),
    "a message is a string": Broken([{"messages": ["hi"]}], "data.wrong_type", 1, "messages.0", "Correct"),
    "no role": Broken([{"messages": [{"content": "a"}]}], "data.missing_key", 1, "messages.0.role", "Add 'role'"),
    "from for role": Broken(
        [{"messages": [{"from": "user", "content": "a"}]}], "data.missing_key", 1, "messages.0.role", "Rename 'from'"
    ),
    "no content": Broken([{"messages": [{"role": "user"}]}], "data.missing_key", 1, "messages.0.content", "'content'"),
    "a mistyped role": Broken(
        [{"messages": [ASKED, turn("asistant", "b")]}], "data.unknown_role", 1, "messages.1.role", "'assistant'"
    ),
    "content is a list": Broken(
        [{"messages": [{"role": "user", "content": [{"type": "text"}]}]}],
        "data.wrong_type", 1, "messages.0.content", "Correct",
    ),
    "nobody answers": Broken([{"messages": [ASKED]}], "data.no_answer", 1, "messages", "role assistant"),
    "tools are a word": Broken(
        [{"messages": [ASKED, ANSWERED], "tools": "hammer"}], "data.wrong_type", 1, "tools", "Correct"
    ),
    "template arguments": Broken(
        [{"messages": [ASKED, ANSWERED], "chat_template_kwargs": {"a": 1}}],
        "data.not_built", 1, "chat_template_kwargs", "Remove",
    ),
    "a speaker nobody knows": Broken(
        [{"conversations": [{"from": "humn", "value": "a"}]}], "data.unknown_role", 1, "conversations.0.from", "'human'"
    ),
    "a turn without value": Broken(
        [{"conversations": [{"from": "human", "values": "a"}]}],
        "data.missing_key", 1, "conversations.0.value", "Rename 'values'",
    ),
    "a turn that is a number": Broken(
        [{"conversations": [{"from": "human", "value": 3}]}], "data.wrong_type", 1, "conversations.0.value", "Correct"
    ),
    "no gpt": Broken(
        [{"conversations": [{"from": "human", "value": "a"}]}], "data.no_answer", 1, "conversations", "from gpt"
    ),
    "an empty output": Broken([{"instruction": "a", "output": " "}], "data.empty_value", 1, "output", "Fill it"),
    "an input that is a list": Broken(
        [{"instruction": "a", "input": ["x"], "output": "b"}], "data.wrong_type", 1, "input", "Correct"
    ),
    "a history": Broken(
        [{"instruction": "a", "output": "b", "history": [["c", "d"]]}], "data.not_built", 1, "history", "as messages"
    ),
    "no preference": Broken([CHOICE | {"chosen": "bad"}], "data.no_preference", 1, "rejected", "Remove the row"),
    "preferences of two kinds": Broken(
        [CHOICE | {"rejected": [ANSWERED]}], "data.wrong_type", 1, "rejected", "Correct"
    ),
    "a prompt of another kind": Broken([CHOICE | {"prompt": [ASKED]}], "data.wrong_type", 1, "prompt", "Correct"),
    "a preference for a question": Broken(
        [{"chosen": [ASKED, ANSWERED], "rejected": [ASKED]}], "data.no_answer", 1, "rejected", "the assistant's"
    ),
    "preferences to tune on": Broken([CHOICE], "data.wrong_format", 1, "recipe", "prompt and completion"),
}  # fmt: skip
TABLES: dict[str, Broken] = {
    "a header alone": Broken("text\n", "data.empty_file", None, "", "fill it", name="a.csv"),
    "no header": Broken(
        "What is a river?,Water.\nWhat is a hill?,Earth.\n",
        "data.unknown_format", 2, "What is a river?", "first line names its columns", name="a.csv",
    ),
    "a nameless column": Broken("prompt,,completion\na,b,c\n", "data.bad_header", 1, "", "Name every", name="a.csv"),
    "a column twice": Broken("text,text\na,b\n", "data.bad_header", 1, "", "once", name="a.csv"),
    "a cell too many": Broken(
        "prompt,completion\na,b\na,b, and more\n", "data.bad_table", 3, "", "double quotes", name="a.csv"
    ),
    "a cell too few": Broken("prompt\tcompletion\na\n", "data.bad_table", 2, "", "double quotes", name="a.tsv"),
    "quotes without end": Broken(
        'prompt,completion\na,b\n"a,b\nc,d\n', "data.bad_table", 3, "", "Close the quotes", name="a.csv"
    ),
    "an odd quote": Broken('prompt,completion\na,"b" c\n', "data.bad_table", 2, "", '""', name="a.csv"),
    "an empty cell": Broken("prompt,completion\na,\n", "data.null_value", 2, "completion", "Fill it", name="a.csv"),
    "columns of other names": Broken(
        "question,answer\na,b\n", "data.unknown_format", 2, "question", "map your keys", name="a.csv"
    ),
    "a mistyped column": Broken("promt,completion\na,b\n", "data.unknown_key", 2, "promt", "'prompt'", name="a.csv"),
    "latin-1 in a table": Broken(b"text\ncaf\xe9\n", "data.not_utf8", 2, "", "UTF-8", name="a.csv"),
    "a zero byte": Broken("text\na\0b\n", "data.bad_table", 2, "", "UTF-8", name="a.csv"),
    "a mapped column that is not there": Broken(
        "question,answer\na,b\n", "data.unmapped_key", 2, "reply", "Known keys: answer, question", name="a.csv",
        mapping={"prompt": "question", "completion": "reply"},
    ),
    "messages that are no list": Broken(
        "messages\nhello\n", "data.wrong_type", 2, "messages", "Correct", name="a.csv"
    ),
    "not parquet": Broken(b"PAR0" + bytes(40), "data.bad_parquet", None, "", "again", name="a.parquet"),
    "bytes for text in parquet": Broken(
        _parquet(text=[b"a", b"b"]), "data.column_type", None, "text", "strings", name="a.parquet"
    ),
    "a picture in a message in parquet": Broken(
        _parquet(messages=[[{"role": "user", "content": "hi", "image": b"x"}, ANSWERED]]),
        "data.column_type",
        None,
        "messages",
        "leave out",
        name="a.parquet",
    ),
    "two columns of a name in parquet": Broken(
        _two_columns_of_a_name, "data.bad_header", None, "text", "of its own", name="a.parquet"
    ),
    "half a parquet": Broken(_cut_parquet, "data.bad_parquet", None, "", "whole", name="a.parquet"),
    "parquet with a hole": Broken(_flipped_parquet, "data.bad_parquet", None, "", "again", name="a.parquet"),
    "parquet without rows": Broken(_parquet(text=[]), "data.empty_file", None, "", "fill it", name="a.parquet"),
    "parquet of other columns": Broken(
        _parquet(question=["a"], answer=["b"]), "data.unknown_format", 1, "question", "map your keys", name="a.parquet"
    ),
    "parquet with a null": Broken(
        _parquet(text=["a", None]), "data.null_value", 2, "text", "Fill it", name="a.parquet"
    ),
    "parquet of numbers": Broken(_parquet(text=[1, 2]), "data.wrong_type", 1, "text", "Correct", name="a.parquet"),
}  # fmt: skip
#: every broken file by its name
BROKEN: dict[str, Broken] = {**BYTES, **SYNTAX, **KEYS, **VALUES, **TABLES}
