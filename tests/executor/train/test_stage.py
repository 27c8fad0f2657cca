"""The parts of `torch.distributed.pipelining` that are not public are those we were tested with."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from torch.distributed.pipelining import stage as torch_stage  # noqa: E402

from traincast.executor.model.decoder import build_layers  # noqa: E402
from traincast.executor.train.stage import TESTED_TORCH, Stage  # noqa: E402
from traincast.sim.model.model import Model  # noqa: E402


def test_torch_is_the_version_the_adapter_was_tested_with():
    """Another version: run tests/executor/run/test_execute.py, then change TESTED_TORCH."""
    assert torch.__version__.startswith(TESTED_TORCH)


@pytest.mark.parametrize(
    "name",
    [
        "_prepare_forward_infra",
        "_prepare_backward_infra",
        "clear_runtime_states",
        "get_fwd_recv_ops",
        "get_fwd_send_ops",
        "get_bwd_recv_ops",
        "get_bwd_send_ops",
        "forward_one_chunk",
        "backward_one_chunk",
    ],
)
def test_what_the_adapter_calls_is_there(name):
    assert callable(getattr(torch_stage.PipelineStage, name))


def test_static_shapes_are_known_to_torch():
    assert torch_stage.InferenceMode.STATIC in torch_stage.InferenceMode


@pytest.mark.parametrize("tied", [False, True])
def test_gradients_of_weights_come_run_by_run(tiny_model: Model, tied: bool):
    """A run that is told of is whole, and none after it has begun: a tied matrix is the embedding's, whose
    run is the last."""
    layers = build_layers(replace(tiny_model.decoder, tied_embeddings=tied), range(6), seed=1)
    tokens = torch.arange(32).view(2, 16)
    layers.loss(layers(tokens), tokens).backward()
    expected = {p: p.grad for p in layers.parameters()}
    layers.zero_grad(set_to_none=True)
    stage = Stage(
        layers,
        lambda: list(layers.parameters()),
        takes_inputs=True,
        split_after=lambda x: (layers.first(x), layers.rest),
    )
    stage.ends_in(0, layers.loss(stage.forward(0, tokens), tokens))
    stage.backward_input(0, None)
    held = layers.layer_parameters()
    runs = [held[5] + held[4], held[3], held[2] + held[1] + held[0]]
    told = []

    def made(number: int) -> None:
        told.append(number)
        for place, parameter in ((n, p) for n, run in enumerate(runs) for p in run):
            if place > number:
                assert parameter.grad is None
            else:
                torch.testing.assert_close(parameter.grad, expected[parameter])

    stage.backward_weight(0, runs, made)
    assert told == [0, 1, 2]
