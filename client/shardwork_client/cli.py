"""`shardwork`: the requester's command line. The root of the commands, and nothing else.

    shardwork init               the first run, step by step
    shardwork login              get to know a coordinator
    shardwork wallet …           commands/wallet.py
    shardwork data …             commands/data.py
    shardwork job …              commands/jobs.py
    shardwork artifact …         commands/artifacts.py
    shardwork api-key …          commands/api_keys.py
    shardwork feedback …         commands/feedback.py
    shardwork demo …             commands/demo.py
    shardwork config …           commands/configuration.py

What a command needs beyond typer is imported inside it, so that `--help` stays quick. Failures: `outcome`.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from .commands import (
    api_keys,
    artifacts,
    before,
    collecting,
    configuration,
    data,
    demo,
    feedback,
    feedback_asking,
    following,
    jobs,
    login,
    serving,
    setup,
    steering,
    wallet,
)

EPILOG = (
    "First steps:  shardwork init  ·  shardwork job init sft  ·  shardwork job plan job.yaml\n\n"
    "Exit codes:  0 ok · 1 failed · 2 usage · 3 wrong file or value · 4 not found · 5 not allowed · 6 not enough sats "
    "· 7 coordinator unreachable · 8 job failed · 130 Ctrl-C"
)

app = typer.Typer(
    name="shardwork",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)
app.command("init")(setup.init)
app.command("login")(login.login)
app.add_typer(wallet.app, name="wallet")
app.add_typer(data.app, name="data")
app.add_typer(artifacts.app, name="artifact")
app.add_typer(api_keys.app, name="api-key")
app.add_typer(feedback.app, name="feedback")
app.add_typer(demo.app, name="demo")
app.add_typer(configuration.app, name="config")
app.add_typer(jobs.app, name="job")
#: each adds its verbs to `job` when it is loaded, in the order of --help
JOB_VERBS = (before, following, steering, collecting, serving)
#: likewise to `feedback`
FEEDBACK_VERBS = (feedback_asking,)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"shardwork {version('shardwork')}")
        raise typer.Exit()


@app.callback()
def root(
    join: Annotated[
        str | None,
        typer.Option("--join", metavar="JOIN", help="Talk to this coordinator instead of the remembered one."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train and tune language models on GPUs you don't own, paid shard by shard."""


def main() -> None:
    """Entry point of the `shardwork` command."""
    _settle_streams()
    # a `kill` leaves as orderly as Ctrl-C does: the terminal gets its cursor back, and nothing stays staged
    signal.signal(signal.SIGTERM, _leave)
    # the transport's own log lines would stand in the middle of our sentences
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        app()
    except OSError as error:  # from --help and usage errors; commands have `outcome.guard`
        if os.environ.get("SHARDWORK_DEBUG") == "1":
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"✗ The output cannot be written: {error.strerror}.", file=sys.stderr)
        sys.exit(1)


def _leave(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _settle_streams() -> None:
    """Streams that are closed swallow what is written; letters that a locale lacks come out as '?'."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  lives as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    main()
