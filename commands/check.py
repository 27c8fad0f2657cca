"""`traincast check`: check input files and show every fault at once."""

from __future__ import annotations

from pathlib import Path

import click

from ..sim.errors import Fault, InputError
from .options import json_option
from .output import echo_json, note


@click.command("check", short_help="Check input files and show every fault at once.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
def command(files: tuple[Path, ...], as_json: bool) -> None:
    """Check cluster, accelerator, plan and model files; exit 3 where any has a fault.

    \b
    Example:
      traincast check topologies/hgx-h100.yaml models/llama3-8b.json
    """
    from ..sim.check import check_file

    errors: list[Fault] = []
    warnings: list[Fault] = []
    for path in files:
        found, doubtful = check_file(path)
        errors += found
        warnings += doubtful
        if not found and not as_json:
            click.echo(f"{path}: ok")
    if as_json:
        echo_json(
            {"errors": [str(fault) for fault in errors], "warnings": [str(fault) for fault in warnings]}
        )
    else:
        for fault in warnings:
            note(f"warning: {fault}")
    if errors:
        raise InputError(errors)
