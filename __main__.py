"""The command line: `traincast COMMAND`, also as `python -m traincast`.

Commands are loaded when they run. Data goes to stdout, everything else to stderr; exit codes are those
of `sim/errors.py`.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from keyword import iskeyword

import click

from . import __version__
from .sim.errors import EnvironmentMismatchError, TraincastError

COMMANDS = {
    "demo": "End to end on this machine: calibrate, plan, run, compare, report.",
    "plan": "Rank the ways to train a model on a cluster.",
    "simulate": "Predict one step of one strategy or plan.",
    "memory": "Memory of every pipeline rank, by what fills it.",
    "goodput": "How often to save, and what failures leave of the time.",
    "schedule": "Step time, bubble and memory of pipeline schedules.",
    "calibrate": "Measure this machine and write it as a cluster file.",
    "run": "Train by a plan with torch.distributed and measure it.",
    "converge": "Loss against seconds of update protocols: predicted, and run.",
    "validate": "Score predictions on published measurements.",
    "compare": "Lay a measured trace beside a predicted one.",
    "report": "Write one self-contained HTML report of a directory of results.",
    "collective": "Seconds and bandwidth of a collective, by size and ranks.",
    "import": "Take over what another program measured.",
    "check": "Check input files and show every fault at once.",
    "doctor": "Say what this machine can do and what is missing.",
}


class LazyGroup(click.Group):
    """Knows its commands by name and imports one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        return import_module(f".commands.{module}", __package__).command

    def resolve_command(self, ctx: click.Context, args: list[str]):
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean '{near[0]}'?" if near else f" Commands: {', '.join(COMMANDS)}."
            ctx.fail(f"No such command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="traincast")
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.pass_context
def cli(ctx: click.Context, verbose: bool, quiet: bool) -> None:
    """Forecast distributed deep-learning training, then make the forecast come true.

    \b
    Example:
      traincast plan llama3-70b --cluster hgx-h100 --nodes 16 --global-batch 1024 --seq-len 8192
    """
    ctx.obj = {"quiet": quiet, "verbose": verbose}
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")


def main() -> None:
    """Run the command line and exit with its code; nothing a user types ends in a traceback."""
    if sys.stdout is None:  # closed by the caller, as `>&-` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except TraincastError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        hint = "planning works without it; to run: pip install -c constraints.txt 'traincast[run]'"
        click.echo(f"error: torch is not installed; {hint}", err=True)
        sys.exit(EnvironmentMismatchError.exit_code)
    except BrokenPipeError:
        # The reader of stdout has gone, as with `| head`; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        click.echo(f"error: {error.filename or 'system'}: {error.strerror or error}", err=True)
        sys.exit(3)


if __name__ == "__main__":
    main()
