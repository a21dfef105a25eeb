"""The jailed side of chat templates: a program of its own that renders what it is told and can reach nothing.

Run by path as `python -I render_child.py` with an empty environment; imports only jinja2 and the standard library, so
that it starts quickly and holds nothing worth stealing. One JSON line in, one out:

    {"template", "date", "variables", "row_seconds", "row_chars"}        -> {"ok": true} or {"error": [kind, text]}
    [{"messages", "tools", "renders": [[count, add_generation_prompt]]}] -> [[text, …] or {"error": [kind, text]}]

Error kinds: "row" (this row was refused), "template" (it is broken or unsafe), "limit" (too slow or too large).
The parent is `shardwork.dataset.template`.
"""

from __future__ import annotations

import json
import signal
import sys
from datetime import datetime
from typing import Any, NoReturn, cast

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MEMORY_BYTES = 1 << 30
CPU_SECONDS = 3600
_REASONING = ("reasoning_content", "thinking", "reasoning")


class LimitReached(BaseException):
    """Not an Exception, so that no template construct can swallow it."""


class Generation(Extension):
    """`{% generation %}` marks answers for other tools; here it is transparent."""

    tags = {"generation"}  # noqa: RUF012  jinja declares it as an instance variable

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Macro) -> str:
        return str(caller())


class PlainNamespace(Namespace):
    """jinja's namespace without underscore names, which could reach Python's internals."""

    def __init__(*args: Any, **values: Any) -> None:
        for name in dict(*args[1:], **values):
            if str(name).startswith("_"):
                raise SecurityError(f"a template may not store {name!r}")
        Namespace.__init__(*args, **values)

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a template may not store {name!r}")
        super().__setitem__(name, value)


def limit_process() -> None:
    """Memory, processor time, and no files to write; where the platform has such limits."""
    try:
        import resource
    except ImportError:
        return
    for kind, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 3),
    ):
        try:
            resource.setrlimit(kind, (value, value))
        except (ValueError, OSError):
            pass  # the parent's deadline and the sandbox still hold


def environment(date: datetime) -> ImmutableSandboxedEnvironment:
    """The settings of transformers' apply_chat_template, minus what depends on chance or on the day."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def plain_dict(*args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    made.filters["tojson"] = tojson
    made.filters.pop("random")
    made.globals.pop("lipsum")
    cast("dict[str, Any]", made.globals).update(
        raise_exception=raise_exception, strftime_now=date.strftime, dict=plain_dict, namespace=PlainNamespace
    )
    return made


class Renderer:
    """One compiled template and its limits."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._variables: dict[str, str] = setup["variables"]
        self._seconds: float = setup["row_seconds"]
        self._chars: int = setup["row_chars"]
        self._template = environment(datetime.fromisoformat(setup["date"])).from_string(setup["template"])

    def row(self, request: dict[str, Any]) -> Any:
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        try:
            messages = [_with_reasoning(message) for message in request["messages"]]
            tools = request["tools"] or None
            return [self._render(messages[:count], tools, add) for count, add in request["renders"]]
        except (LimitReached, MemoryError, RecursionError, OverflowError) as error:
            return {"error": ["limit", str(error) or type(error).__name__]}
        except SecurityError as error:
            return {"error": ["template", f"it reaches for what it may not use: {error}"]}
        except TemplateError as error:
            return {"error": ["row", str(error)[:300]]}
        except Exception as error:
            return {"error": ["row", f"{type(error).__name__}: {error}"[:300]]}
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _render(self, messages: list[Any], tools: Any, add_generation_prompt: bool) -> str:
        pieces: list[str] = []
        size = 0
        for piece in self._template.generate(
            {
                **self._variables,
                "messages": messages,
                "tools": tools,
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
            }
        ):
            size += len(piece)
            if size > self._chars:
                raise LimitReached(f"it writes more than {self._chars} characters for one row")
            pieces.append(piece)
        return "".join(pieces)


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Older names of the reasoning field are given the newer one too, as transformers does."""
    found = next((message[key] for key in _REASONING if message.get(key) is not None), None)
    return message if found is None else {"thinking": found, **message, "reasoning_content": found}


def _too_slow(_signal: int, _frame: object) -> NoReturn:
    raise LimitReached("it takes too long for one row")


def warm_up() -> None:
    """Makes Python and jinja import what they import late: after the limits no file can be opened any more."""
    made = environment(datetime(2024, 1, 1))
    made.from_string("{{ '\\n\\u00e9' | tojson }}{{ strftime_now('%Y') }}").render()
    for broken in ("{% if %}", "{{ raise_exception('x') }}", "{{ missing.attribute.deeper }}", "{{ 'x' + 1 }}"):
        try:
            made.from_string(broken).render()
        except Exception:
            pass


def main() -> None:
    signal.signal(signal.SIGALRM, _too_slow)
    warm_up()
    limit_process()
    renderer: Renderer | None = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any
        if renderer is None:
            try:
                renderer = Renderer(request)
                answer = {"ok": True}
            except TemplateSyntaxError as error:
                answer = {"error": ["template", f"line {error.lineno}: {error.message}"]}
            except Exception as error:
                answer = {"error": ["template", f"{type(error).__name__}: {error}"[:300]]}
        else:
            answer = [renderer.row(row) for row in request]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
