"""The JSON form of plans, as pydantic reads it. Made from the dataclasses, so that it cannot drift."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, create_model

from ..errors import InputError
from ..files.document import RefusalError, shown
from ..model.decoder import Decoder
from .action import Actions, parse_actions
from .job import Job
from .plan import Stage
from .strategy import Strategy

SCHEMA = "traincast.plan/1"
MAX_SIZE = 10**9
"""Of any whole number in a plan."""
_MAX_TOKEN = 40

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


def _bounded(value: int) -> int:
    if not -MAX_SIZE <= value <= MAX_SIZE:
        raise RefusalError(shown(value), f"at most {MAX_SIZE}")
    return value


Whole = Annotated[StrictInt, AfterValidator(_bounded)]
Layers = Annotated[tuple[Whole, ...], Field(strict=False)]
"""Indices of layers."""


_STRICTER: dict[Any, Any] = {int: Whole, tuple[int, ...]: Layers}
"""What a file may hold for a field's type."""


def _form_of(kind: type, *left_out: str) -> type[BaseModel]:
    """A strict pydantic model with the fields and defaults of a dataclass."""
    hints = get_type_hints(kind)
    definitions: dict[str, Any] = {
        field.name: (
            _STRICTER.get(hints[field.name], hints[field.name]),
            ... if field.default is MISSING else field.default,
        )
        for field in fields(kind)
        if field.name not in left_out
    }
    return create_model(f"{kind.__name__}Form", __config__=_STRICT, **definitions)


DecoderForm = _form_of(Decoder)
JobForm = _form_of(Job, "model")
StrategyForm = _form_of(Strategy)


class ModelForm(BaseModel):
    model_config = _STRICT

    name: str
    decoder: DecoderForm | None = None  # type: ignore[valid-type]
    network: dict[str, Any] | None = None
    """Read by `model_file.py`."""
    source: str = ""
    module: str = ""


class StageForm(BaseModel):
    model_config = _STRICT

    first_layer: Whole
    end_layer: Whole
    buckets: Annotated[tuple[Layers, ...], Field(strict=False)] = ()

    def read(self, index: int) -> Stage:
        return Stage(
            index=index, first_layer=self.first_layer, end_layer=self.end_layer, buckets=self.buckets
        )


def _actions(value: object) -> Actions:
    """Actions as one text, or as a list with one text each."""
    tokens = value.split() if isinstance(value, str) else value
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise RefusalError(shown(value), "actions, as '0F0 0B0 0STEP'")
    try:
        too_long = next((token for token in tokens if len(token) > _MAX_TOKEN), None)
        if too_long is not None:
            raise RefusalError(shown(too_long), "an action, as 0F0")
        return parse_actions(tokens)
    except InputError as error:
        fault = error.faults[0]
        raise RefusalError(fault.found, fault.expected, fault.hint) from None


ActionLists = Annotated[
    tuple[Annotated[Any, BeforeValidator(_actions)], ...],
    Field(strict=False),
]


Bytes = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=False)]


class SizesForm(BaseModel):
    """Bytes of messages."""

    model_config = _STRICT

    messages: list[Bytes]
    buckets: list[list[Bytes]]
    shards: list[Bytes]


class PlanForm(BaseModel):
    """A whole plan."""

    model_config = _STRICT

    schema_: Literal["traincast.plan/1"] = Field(alias="schema", description=SCHEMA)
    model: ModelForm
    job: JobForm  # type: ignore[valid-type]
    strategy: StrategyForm  # type: ignore[valid-type]
    stages: Annotated[tuple[StageForm, ...], Field(strict=False)]
    actions: ActionLists
    server_actions: ActionLists = ()
    shards: Annotated[tuple[Layers, ...], Field(strict=False)] = ()
    sizes: SizesForm | None = None
    cluster: dict[str, str | int | float | bool] = Field(default_factory=dict)
