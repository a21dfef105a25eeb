"""`shardwork`: the requester's command line. The root of the commands, and nothing else.

    shardwork login              get to know a coordinator
    shardwork wallet …           commands/wallet.py
    shardwork data …             commands/data.py
    shardwork job …              commands/job.py

What a command needs beyond typer is imported inside it, so that `--help` stays quick. Failures: `outcome`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from .commands import data, job, login, wallet

EPILOG = "First steps:  shardwork login JOIN  ·  shardwork wallet deposit 2000  ·  shardwork job plan job.yaml"

app = typer.Typer(
    name="shardwork",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)
app.command("login")(login.login)
app.add_typer(wallet.app, name="wallet")
app.add_typer(data.app, name="data")
app.add_typer(job.app, name="job")


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
    """Train, tune and align language models on GPUs you don't own, paid shard by shard."""


def main() -> None:
    """Entry point of the `shardwork` command."""
    app()


if __name__ == "__main__":
    main()
