"""The surface: what --help shows, what it imports, usage errors, interrupts and unforeseen failures."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer

from shardwork.errors import ERRORS
from shardwork.why import Why
from shardwork_client.outcome import guard
from shardwork_client.render import place

from .conftest import Run, error_of
from .fake_coordinator import Fake

#: what a `--help` may not load: each of them is slow, and none is needed to print text
HEAVY = ("torch", "numpy", "grpc", "tokenizers", "jinja2", "httpx", "google", "nacl", "cryptography", "yaml")
COMMANDS: dict[tuple[str, ...], tuple[str, ...]] = {
    (): ("init", "login", "wallet", "data", "artifact", "api-key", "feedback", "config", "job"),
    ("wallet",): ("deposit", "withdraw", "cancel", "balance", "history"),
    ("data",): ("check",),
    ("artifact",): ("list", "delete"),
    ("api-key",): ("create", "list", "revoke"),
    ("feedback",): ("ratings", "report", "export", "import", "judge", "progress", "vote"),
    ("config",): ("show",),
    ("job",): (
        *("init", "validate", "plan", "submit", "list", "show", "watch", "events", "logs"),
        *("why", "pause", "resume", "cancel", "topup", "report", "download", "serve-check"),
    ),
}
NOT_BUILT = ("ingest", "make-qa", "blend", "rag", "verify")


def imported_by(*arguments: str) -> set[str]:
    """Top-level packages in sys.modules after the command ran in a fresh process."""
    code = (
        "import sys, json\n"
        "from shardwork_client.cli import app\n"
        "try:\n    app(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [("--help",), ("job", "--help"), ("job", "submit", "--help"), ("--version",)])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert imported_by(*arguments) & set(HEAVY) == set()


def test_no_command_needs_torch_or_numpy(logged_in: Run, fake: Fake) -> None:
    for arguments in (("job", "list"), ("wallet", "balance"), ("job", "validate", "missing.yaml")):
        assert imported_by(*arguments) & {"torch", "numpy", "transformers"} == set()


@pytest.mark.parametrize("group", COMMANDS)
def test_help_shows_what_is_built_and_nothing_else(run: Run, group: tuple[str, ...]) -> None:
    result = run(*group, "--help")
    assert result.exit_code == 0
    words = set(result.stdout.split())
    assert set(COMMANDS[group]) <= words
    assert not words & set(NOT_BUILT)


def test_version_is_one_line(run: Run) -> None:
    assert run("--version").stdout.startswith("shardwork 0.")


@pytest.mark.parametrize("arguments", [("nope",), ("job", "show"), ("job", "list", "--limit", "0"), ("wallet", "x")])
def test_usage_errors_are_exit_2(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_every_error_class_leaves_with_its_exit_code(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = ERRORS[name]("some.code", "It broke.", next_step="Mend it.", file="job.yaml", line=7, key="plan.rounds")
    with pytest.raises(typer.Exit) as ended, guard():
        raise error
    assert ended.value.exit_code == error.exit_code
    told = capsys.readouterr()
    assert told.out == ""
    assert "It broke." in told.err and "job.yaml:7: plan.rounds" in told.err and "→ Mend it." in told.err


def test_an_unforeseen_error_shows_no_traceback_unless_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHARDWORK_DEBUG", raising=False)
    with pytest.raises(typer.Exit) as ended, guard():
        raise ZeroDivisionError("oops")
    assert ended.value.exit_code == 1
    told = capsys.readouterr().err
    assert "Traceback" not in told and "SHARDWORK_DEBUG=1" in told
    monkeypatch.setenv("SHARDWORK_DEBUG", "1")
    with pytest.raises(ZeroDivisionError), guard():
        raise ZeroDivisionError("oops")


def test_ctrl_c_is_exit_130() -> None:
    for error in (KeyboardInterrupt(), typer.Abort()):
        with pytest.raises(typer.Exit) as ended, guard():
            raise error
        assert ended.value.exit_code == 130


def test_refusals_of_the_coordinator_keep_their_class_over_the_wire(logged_in: Run, fake: Fake) -> None:
    for name, cls in ERRORS.items():
        if name == "Unreachable":
            continue  # the session retries that one; an absent coordinator is tested with the login
        fake.refuse = cls("test.refused", "No.", next_step="Ask.", limit=3)
        result = logged_in("wallet", "balance", "--json")
        assert result.exit_code == cls.exit_code, name
        assert error_of(result)["evidence"] == {"limit": "3"}


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ({"file": "a.yaml", "line": "7", "key": "plan"}, "a.yaml:7: plan"),
        ({"file": "a.yaml", "line": "", "key": ""}, "a.yaml"),
        ({"line": "7"}, ""),
    ],
)
def test_a_place_reads_like_a_compiler_s(evidence: dict[str, str], expected: str) -> None:
    assert place(evidence) == expected
    assert Why(code="a", sentence="b.", evidence=evidence).evidence == evidence
