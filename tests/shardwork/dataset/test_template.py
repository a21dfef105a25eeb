"""A chat template is somebody else's program: what it may do, and what stops it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardwork.dataset import template as subject
from shardwork.dataset.template import (
    ChatTemplate,
    RenderRequest,
    RowRefused,
    assistant_spans,
    find_template,
    turn_renders,
)
from shardwork.errors import InvalidInput

from .folders import CHAT, THINKING, turn

HELLO = [turn("user", "hi"), turn("assistant", "hello")]

ESCAPES = {
    "class attribute": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr filter": "{{ ''|attr('__class__') }}{{ (''|attr('__class__')).__mro__ }}",
    "format string": "{{ '{0.__class__.__mro__}'.format('') }}",
    "function globals": "{{ raise_exception.__globals__ }}",
    "namespace init": "{{ namespace.__init__.__globals__['os'].system('true') }}",
    "underscore in a namespace": "{% set n = namespace(__class__='x') %}",
    "self": "{{ self.__init__.__globals__ }}",
    "cycler": "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
    "changing the messages": "{{ messages.append(1) }}",
    "import": "{% import 'os' as os %}",
    "include": "{% include '/etc/passwd' %}",
}
BOMBS = {
    "huge range": "{% for i in range(10**9) %}{% endfor %}",
    "nested ranges": "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
    "endless output": "{% for i in range(90000) %}{{ 'x' * 100000 }}{% endfor %}",
    "doubling": "{% set n = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "one giant string": "{{ 'x' * 10**10 }}",
    "giant number": "{{ 9 ** (9 ** 9) }}",
    "padding": "{{ '%1000000000d' % 1 }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
}


def render(source: str) -> list[str] | RowRefused:
    with ChatTemplate(source, {"eos_token": "</s>"}) as template:
        return template.render([RenderRequest(messages=HELLO, renders=[(2, False)])])[0]


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(subject, "ROW_SECONDS", 0.3)
    monkeypatch.setattr(subject, "BATCH_SECONDS", 2.0)
    yield


@pytest.mark.parametrize("name", ESCAPES)
def test_no_template_reaches_python(name: str) -> None:
    """Refused, or rendered to nothing of value: never an object of Python's."""
    try:
        answer = render(ESCAPES[name])
    except InvalidInput as error:
        assert error.code == "template.refused"
        return
    if isinstance(answer, list):
        assert "class" not in answer[0] and "root:" not in answer[0] and "function" not in answer[0]


@pytest.mark.parametrize("name", BOMBS)
def test_no_template_takes_the_machine_down(name: str, short_limits: None) -> None:
    try:
        answer = render(BOMBS[name])
    except InvalidInput as error:
        assert error.code == "template.refused"
        return
    assert isinstance(answer, RowRefused)


def test_a_template_that_cannot_be_parsed_is_refused_with_its_line() -> None:
    with pytest.raises(InvalidInput, match="line 2"):
        render("{{ 1 }}\n{% if %}")


def test_a_template_may_refuse_one_row_and_render_the_next() -> None:
    source = "{% if messages[0].content == 'no' %}{{ raise_exception('not that') }}{% endif %}yes"
    rows = [
        RenderRequest(messages=[turn("user", content)], renders=[(1, False)]) for content in ("no", "fine", "no", "ok")
    ]
    with ChatTemplate(source, {"eos_token": "</s>"}) as template:
        answers = template.render(rows)
    assert [isinstance(answer, RowRefused) for answer in answers] == [True, False, True, False]
    assert isinstance(answers[0], RowRefused) and "not that" in answers[0].sentence


def test_a_broken_place_for_templates_is_no_crash(tmp_path: Path) -> None:
    assert find_template(tmp_path, {"chat_template": [5, {"name": "default", "template": "x"}]}) == "x"
    assert find_template(tmp_path, {"chat_template": [5]}) is None
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(InvalidInput) as caught:
        find_template(tmp_path, {})
    assert caught.value.code == "template.refused" and caught.value.why.evidence["file"].endswith(".jinja")


def test_many_rows_go_to_several_children_and_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "ROWS_PER_CHILD", 3)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    source = "{% if messages[0].content == '5' %}{{ raise_exception('no fives') }}{% endif %}{{ messages[0].content }}"
    rows = [RenderRequest(messages=[turn("user", str(number))], renders=[(1, False)]) for number in range(11)]
    started: list[subprocess.Popen[str]] = []

    class Counted(subprocess.Popen[str]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr("subprocess.Popen", Counted)
    with ChatTemplate(source, {}) as template:
        assert template.render([]) == [] and not started
        assert template.render(rows[:2]) == [["0"], ["1"]] and len(started) == 1
        answers = template.render(rows)
        assert len(started) == subject.MAX_CHILDREN
        assert [answer for number, answer in enumerate(answers) if number != 5] == [
            [str(n)] for n in range(11) if n != 5
        ]
        assert isinstance(answers[5], RowRefused)


def test_a_bomb_in_one_of_several_children_refuses_the_template_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch, short_limits: None
) -> None:
    monkeypatch.setattr(subject, "ROWS_PER_CHILD", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    source = "{% if messages[0].content == 'b' %}{{ 9 ** (9 ** 9) }}{% endif %}ok"
    rows = [RenderRequest(messages=[turn("user", text)], renders=[(1, False)]) for text in "ab"]
    with ChatTemplate(source, {}) as template, pytest.raises(InvalidInput) as caught:
        template.render(rows)
    assert caught.value.code == "template.refused"


def test_the_date_stands_still() -> None:
    assert render("{{ strftime_now('%Y-%m-%d') }}") == ["2024-07-26"]


def test_generation_marks_are_transparent() -> None:
    assert render("a{% generation %}b{% endgeneration %}c") == ["abc"]


def test_ours_by_name_and_nothing_else() -> None:
    from pathlib import Path

    assert find_template(Path(), {}, "chatml") == subject.CHATML
    with pytest.raises(InvalidInput, match="no chat template 'llama'"):
        find_template(Path(), {}, "llama")


@pytest.mark.parametrize("source", [CHAT, THINKING, subject.CHATML])
def test_spans_hold_every_answer_and_no_question(source: str) -> None:
    messages = [
        turn("system", "rules"),
        turn("user", "one?"),
        turn("assistant", "first answer"),
        turn("user", "two? first answer"),
        turn("assistant", "second answer"),
    ]
    with ChatTemplate(source, {"eos_token": "</s>"}) as template:
        texts = template.render([RenderRequest(messages=messages, renders=turn_renders(messages))])[0]
    assert isinstance(texts, list)
    spans = assistant_spans(messages, texts)
    assert isinstance(spans, list)
    cut = [texts[0][begin:end] for begin, end in spans]
    assert len(cut) == 2 and "first answer" in cut[0] and "second answer" in cut[1]
    assert not any("?" in piece or "user" in piece or "rules" in piece for piece in cut)


def test_a_template_that_hides_earlier_answers_is_refused_for_that_row() -> None:
    source = "{{ messages[-1].content }}"
    messages = [turn("assistant", "hidden"), turn("user", "next"), turn("assistant", "shown")]
    with ChatTemplate(source, {"eos_token": "</s>"}) as template:
        texts = template.render([RenderRequest(messages=messages, renders=turn_renders(messages))])[0]
    assert isinstance(texts, RowRefused) or isinstance(assistant_spans(messages, texts), RowRefused)
