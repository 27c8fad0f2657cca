"""Options that several commands share; what they mean is the business of the functions they are given to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from .. import CHOICES, Strategy, TraincastError, check_output, schedule_names

Decorator = Callable[[Callable], Callable]


class OutputFile(click.Path):
    """A path that a file will be written to: what may not be replaced is refused before the work begins."""

    def __init__(self, *, parents_are_made: bool = False):
        super().__init__(dir_okay=False, readable=False, path_type=Path)
        self.parents_are_made = parents_are_made

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        check_output(path, parents_are_made=self.parents_are_made)
        return path


class OutputDirectory(click.Path):
    """A directory that files will be written to, there or not; an empty name is a slip, not `.`."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("no directory name", param, ctx)
        if (path := Path(os.fsdecode(value))).exists() and not path.is_dir():
            self.fail(f"{path} is no directory; give another path", param, ctx)
        return super().convert(value, param, ctx)


def png_option(help_text: str, *names: str) -> Decorator:
    """`--png`, a picture whose folder is made where there is none."""
    return click.option("--png", *names, type=OutputFile(parents_are_made=True), help=help_text)


def _apply(decorators: list[Decorator]) -> Decorator:
    def decorate(function: Callable) -> Callable:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
seed_option = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)

cluster_options = _apply(
    [
        click.option("--cluster", "cluster_name", required=True, help="Preset or cluster file."),
        click.option("--nodes", type=click.IntRange(min=1), help="Nodes, where not those of the file."),
    ]
)


def _job_options(required: bool) -> Decorator:
    return _apply(
        [
            click.option(
                "--global-batch", type=int, required=required, help="Samples of one optimizer step."
            ),
            click.option("--seq-len", type=int, help="Tokens of one sample; images have none."),
            click.option(
                "--optimizer", type=click.Choice(CHOICES["optimizer"]), default="adamw", show_default=True
            ),
            click.option(
                "--precision",
                type=click.Choice(CHOICES["precision"]),
                help="Of weights and activations.  [default: bf16, on a CPU fp32]",
            ),
            click.option("--dropout", is_flag=True, help="Train with dropout."),
            click.option(
                "--expert-imbalance",
                type=float,
                default=1.0,
                show_default=True,
                help="Tokens of the busiest expert-parallel rank over the mean.",
            ),
            click.option(
                "--data",
                metavar="text|digits|synthetic|MODULE:NAME",
                default="",
                help="What a run trains on; MODULE:NAME gives (inputs, targets).  [default: by the model]",
            ),
            click.option(
                "--loss",
                metavar="MODULE:NAME",
                default="",
                help="Loss of a module of your own.  [default: cross entropy]",
            ),
            click.option(
                "--routing",
                type=click.Choice(CHOICES["routing"]),
                default="imposed",
                show_default=True,
                help="Run with experts chosen so that loads are as said, or by the router.",
            ),
        ]
    )


job_options = _job_options(required=True)
job_options_optional = _job_options(required=False)
"""Where a plan file may bring the job."""


DEFAULTS = {field.name: field.default for field in fields(Strategy)}


def _degree(name: str, text: str) -> Decorator:
    return click.option(f"-{name}", f"--{name}", type=int, default=1, show_default=True, help=text)


def _choice(name: str, text: str = "") -> Decorator:
    """An option for a field of Strategy that is one of several words."""
    field = name.removeprefix("--").replace("-", "_")
    return click.option(
        name, type=click.Choice(CHOICES[field]), default=DEFAULTS[field], show_default=True, help=text
    )


class NameNow(click.ParamType):
    """One of the names that there are at the moment of asking, as of schedules, which can be added to."""

    name = "choice"

    def __init__(self, names: Callable[[], tuple[str, ...]]):
        self._names = names

    def _choice(self) -> click.Choice:
        return click.Choice(self._names())

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return self._choice().convert(value, param, ctx)

    def get_metavar(self, *asked: Any, **named: Any) -> str | None:
        return self._choice().get_metavar(*asked, **named)

    def get_missing_message(self, *asked: Any, **named: Any) -> str:
        return self._choice().get_missing_message(*asked, **named)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        return self._choice().shell_complete(ctx, param, incomplete)


class _Numbers(click.ParamType):
    """Whole numbers with commas between, as 3,4,4,3."""

    name = "N,N,..."

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers, as 3,4,4,3", param, ctx)


strategy_options = _apply(
    [
        _degree("dp", "Data-parallel replicas."),
        _degree("tp", "Tensor-parallel ranks."),
        _degree("pp", "Pipeline ranks."),
        _degree("vp", "Virtual stages of each pipeline rank."),
        _degree("cp", "Context-parallel ranks."),
        _degree("ep", "Expert-parallel ranks, among dp x cp."),
        click.option("--micro-batch", type=int, default=1, show_default=True),
        click.option(
            "--schedule", type=NameNow(schedule_names), default=DEFAULTS["schedule"], show_default=True
        ),
        click.option("--schedule-csv", "schedule_csv", help="A schedule in PyTorch's CSV format instead."),
        click.option("--stage-layers", type=_Numbers(), default=(), help="Blocks of each stage."),
        _choice("--recompute"),
        click.option("--recompute-blocks", type=int, default=0, help="Of each stage; 0 is all."),
        _choice("--attention"),
        _choice("--stack", "Software that trains."),
        _choice("--sharding", "What the replicas share out."),
        click.option("--shard-degree", type=int, default=0, help="Replicas of one hsdp group."),
        click.option(
            "--reshard-after-forward/--keep-after-forward",
            default=True,
            show_default=True,
            help="Drop gathered parameters after each pass (fsdp, hsdp).",
        ),
        click.option("--prefetch", type=int, default=1, show_default=True, help="Blocks gathered ahead."),
        click.option("--sequence-parallel", is_flag=True, help="Split norms and residuals over tp."),
        _choice("--cp-exchange"),
        _choice("--offload", "What lives in host memory."),
        _choice("--gradient-exchange"),
        click.option("--servers", type=int, default=0, show_default=True, help="Parameter servers."),
        click.option("--server-replicas", type=int, default=1, show_default=True),
        click.option("--servers-colocated", is_flag=True, help="Servers on the workers' own places."),
        click.option(
            "--synchrony",
            default="sync",
            show_default=True,
            help="sync, async, stale:K, backup:B or local:H.",
        ),
        _choice("--collective-algorithm"),
        click.option("--bucket-bytes", type=int, default=DEFAULTS["bucket_bytes"], show_default=True),
        click.option(
            "--overlap-gradients/--no-overlap-gradients",
            default=True,
            show_default=True,
            help="Reduce gradients while backward runs.",
        ),
        click.option(
            "--overlap-transfers/--no-overlap-transfers",
            default=True,
            show_default=True,
            help="Send between stages while they compute.",
        ),
        click.option("--overlap-tensor", is_flag=True, help="Gather and scatter over tp while GEMMs run."),
        _choice("--expert-dispatch"),
        click.option("--overlap-experts", is_flag=True, help="Send to experts while others compute."),
    ]
)


def given(**options: Any) -> dict[str, Any]:
    """Those of ``options`` that the user gave; the defaults of the others are those of the package."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return {
        name: value for name, value in options.items() if context.get_parameter_source(name) is not default
    }


def model_of(what: str, **job: Any) -> Any:
    """``what``, or the Model of the torch module that it names as `package.module:function`, whose code and
    whose data's is run."""
    if ":" not in what or Path(what).exists():
        return what
    from .. import user_model

    return user_model(what, data=job.get("data") or "", global_batch=job.get("global_batch") or 0)


class Read(click.ParamType):
    """A text that a function of the package reads; what it refuses is a misuse of the option."""

    def __init__(self, name: str, read: Callable[[str], Any]):
        self.name, self.read = name, read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.read(value)
        except TraincastError as error:
            self.fail(str(error), param, ctx)
