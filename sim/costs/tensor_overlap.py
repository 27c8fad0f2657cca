"""What of a dense block's tensor-parallel traffic shows, where GEMMs may hide it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..plan.strategy import Strategy
from ..plan.traffic import Collective

TENSOR_OVERLAP = 0.5
"""Of the traffic that GEMMs next to it could hide, what they do hide: decomposed GEMMs are smaller, and
share the device with the copies. Fitted on torchtitan's runs with and without asynchronous tensor
parallelism."""


def exposed_s(
    seconds: float,
    collective: Collective,
    strategy: Strategy,
    gemms_s: Callable[[str], Sequence[float]],
    *,
    backward: bool,
) -> float:
    """Seconds that compute waits for ``collective``, of which one takes ``seconds``, in a pass of a block.

    ``gemms_s`` tells the seconds of a block's GEMMs in a part of its passes (`layer_kernels.PARTS`),
    but those of attention, in order.
    """
    backward = backward and not collective.repeats_forward
    if strategy.overlap_tensor:
        gemms = _four_gemms_s(gemms_s("input_gradient" if backward else "forward"), backward=backward)
        return collective.share * _longer_than_gemms_s(seconds, collective, gemms, strategy.tp)
    if backward and _sums_gradients(collective) and strategy.software.overlaps_input_gradients:
        weights = _leading_weight_gradients_s(gemms_s("weight_gradient"))[: collective.count]
        rest = (collective.count - len(weights)) * seconds
        return collective.share * (rest + sum(max(0.0, seconds - hiding) for hiding in weights))
    return collective.share * collective.count * seconds


def _longer_than_gemms_s(seconds: float, collective: Collective, gemms: list[float], ranks: int) -> float:
    """What is longer than the GEMM it overlaps with, all of which but one rank's part could hide it.

    A block gathers before its 1st and 3rd GEMM and scatters after its 2nd and 4th, in either direction
    (Wang et al. 2023, "Overlap Communication with Dependent Computation via Decomposition").
    """
    first = 0 if collective.operation == "all_gather" else 1
    hiding = [one * (ranks - 1) / ranks for one in gemms[first::2][: collective.count]]
    return sum(seconds - TENSOR_OVERLAP * min(seconds, one) for one in hiding)


def _sums_gradients(collective: Collective) -> bool:
    """Whether, in backward, it sums the gradient of a column-parallel GEMM's input."""
    return collective.operation in ("all_reduce", "reduce_scatter")


def _leading_weight_gradients_s(gemms: Sequence[float]) -> list[float]:
    """Seconds of the weights' gradients of what leads into a block's MLP and into its attention."""
    return [sum(gemms[1:-2]), gemms[-1]]


def _four_gemms_s(gemms: Sequence[float], *, backward: bool) -> list[float]:
    """Seconds of a block's four GEMMs in the order of the pass; gate and up are one here."""
    place = 1 if backward else 2  # of what leads into the MLP
    rest = len(gemms) - 3
    return [*gemms[:place], sum(gemms[place : place + rest]), *gemms[place + rest :]]
