"""The small operations of routing are as many as the simulator counts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from divided_layers import MIXTRAL  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from traincast.executor.model.routing import Router, Routing  # noqa: E402
from traincast.sim.kernels.torch_operations import LAUNCHES  # noqa: E402

VIEWS = {
    "t",
    "view",
    "_unsafe_view",
    "expand",
    "slice",
    "select",
    "unsqueeze",
    "detach",
    "alias",
    "transpose",
}
"""What launches nothing."""


class _Launched(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "family"), [("imposed", "routing"), ("learned", "learned_routing")])
def test_operations_of_a_router_are_counted(kind: str, family: str):
    """But for its GEMMs; and one on GPUs alone: places that impose the choice are copied there, the highest
    scores are sorted by a kernel of their own."""
    router = Router(MIXTRAL, Routing(kind=kind))
    x = torch.randn(3, 16, MIXTRAL.hidden, requires_grad=True)
    with _Launched() as forward:
        _, weights = router(x)
    gradient = torch.ones_like(weights)
    with _Launched() as backward:
        weights.backward(gradient)
    assert forward.counts.pop("mm") == 1
    assert backward.counts.pop("mm") == 2
    assert forward.counts.total() == LAUNCHES[family] - 1
    assert backward.counts.total() == LAUNCHES["routing_backward"]
