"""Subcommands of the command line: each module has `add`, which enters one with its `run`."""
