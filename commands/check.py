"""`traincast check`: check input files and show every fault at once."""

from __future__ import annotations

from pathlib import Path

import click

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
    from .. import check

    found = check(*files)
    if as_json:
        echo_json(found.to_dict())
    else:
        for path, errors in found.errors.items():
            if not errors:
                click.echo(f"{path}: ok")
        for warnings in found.warnings.values():
            for fault in warnings:
                note(f"warning: {fault}")
    found.raise_errors()
