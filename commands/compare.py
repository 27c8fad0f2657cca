"""`traincast compare`: lay a measured trace beside a predicted one."""

from __future__ import annotations

from pathlib import Path

import click

from .options import json_option
from .output import echo_json


@click.command("compare", short_help="Lay a measured trace beside a predicted one.")
@click.argument("predicted", type=click.Path(path_type=Path))
@click.argument("measured", type=click.Path(path_type=Path))
@click.option("--fail-if", "tolerance", help="As 'step_time>10%': exit 5 where the error is larger.")
@json_option
def command(predicted: Path, measured: Path, tolerance: str | None, as_json: bool) -> None:
    """Predicted and measured seconds by phase, rank and action, with the signed error.

    \b
    Example:
      traincast compare out/predicted/1.trace.json.gz out/measured/1.trace.json.gz \\
          --fail-if 'step_time>15%'
    """
    from .. import compare
    from ..reports.compare import print_comparison

    comparison = compare(predicted, measured)
    if as_json:
        echo_json(comparison.to_dict())
    else:
        print_comparison(comparison)
    if tolerance:
        comparison.check(tolerance)
