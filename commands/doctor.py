"""`traincast doctor`: say what this machine can do and what is missing."""

from __future__ import annotations

import click

from .options import json_option
from .output import echo_json


@click.command("doctor", short_help="Say what this machine can do and what is missing.")
@json_option
def command(as_json: bool) -> None:
    """Python, libraries, processor, accelerators and back ends, and how to mend what is missing.

    \b
    Example:
      traincast doctor
    """
    from .. import doctor, remedies

    facts = doctor()
    if as_json:
        echo_json({"schema": "traincast.doctor/1", **facts})
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {value}")
    for hint in remedies(facts):
        click.echo(f"hint: {hint}")
