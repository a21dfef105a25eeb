"""The commands, one file a noun. Each file imports only typer at its top: `--help` must stay quick."""
