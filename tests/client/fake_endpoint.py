"""An OpenAI-compatible server on a port of its own, which counts what it was asked and what that costs."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: (first answer, second answer) -> the letter, or the probability that the first is better
Judge = Callable[[str, str], str | float]


def fenced(text: str, name: str) -> str:
    """What stands between the marks of this name, as the prompt's own token has them."""
    token = text.split("stands between marks ", 1)[1].split(" ", 1)[0]
    return text.split(f"<<<{name} {token}\n", 1)[1].split(f"\n{name} {token}>>>", 1)[0]


@dataclass
class FakeEndpoint:
    judge: Judge
    tokens_in: int = 100
    tokens_out: int = 1
    #: status codes that are answered first
    failures: list[int] = field(default_factory=list[int])
    #: with each of these calls, counted from 1, the line breaks before an answer
    breaks: set[int] = field(default_factory=set[int])
    #: set by a test: calls wait until it is
    gate: threading.Event | None = None
    texts: list[str] = field(default_factory=list[str])
    keys: set[str] = field(default_factory=set[str])
    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    answered: int = 0
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    usage: bool = True

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def stop(self) -> None:
        if self.gate is not None:
            self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert self.path == "/v1/chat/completions"
                status, answer = fake.answer(body, self.headers.get("authorization", ""))
                if status == 0:
                    self.close_connection = True
                    return
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def answer(self, body: dict[str, Any], key: str) -> tuple[int, dict[str, Any]]:
        text = body["messages"][0]["content"]
        with self._lock:
            self.keys.add(key)
            if self.failures:
                status = self.failures.pop(0)
                return status, {"error": {"message": f"not now, {key}"}}
            self.texts.append(text)
            self.bodies.append(body)
            number = len(self.texts)
        self.arrived.release()
        if self.gate is not None:
            self.gate.wait(30)
        if number in self.breaks:
            return 0, {}
        with self._lock:
            self.answered += 1
        return 200, self._said(body, self.judge(fenced(text, "ANSWER A"), fenced(text, "ANSWER B")))

    def _said(self, body: dict[str, Any], verdict: str | float) -> dict[str, Any]:
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": verdict}}
        if isinstance(verdict, float):
            choice["message"]["content"] = "A" if verdict > 0.5 else "B"
            if body.get("logprobs"):
                listed = [("A", verdict), (" B", 1 - verdict), ("Both", 1e-9)]
                top = [{"token": token, "logprob": math.log(max(chance, 1e-12))} for token, chance in listed]
                choice["logprobs"] = {"content": [{"token": "A", "top_logprobs": top}]}
        told: dict[str, Any] = {"choices": [choice]}
        if self.usage:
            told["usage"] = {"prompt_tokens": self.tokens_in, "completion_tokens": self.tokens_out}
        return told
