"""The parts of `torch.distributed.pipelining` that are not public are those we were tested with."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.distributed.pipelining import stage as torch_stage  # noqa: E402

from traincast.executor.train.stage import TESTED_TORCH  # noqa: E402


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
