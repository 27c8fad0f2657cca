"""What of a dense block's tensor-parallel traffic shows, beside the products that it may hide behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..plan.strategy import Strategy
from ..plan.traffic import Collective

TENSOR_OVERLAP = 0.5
"""Of the traffic that products beside it could hide, what they do hide: decomposed products are smaller, and
share the device with the copies. Fitted on torchtitan's runs with and without asynchronous tensor
parallelism."""


def exposed_s(
    seconds: float,
    collective: Collective,
    strategy: Strategy,
    products_s: Callable[[str], Sequence[float]],
    *,
    backward: bool,
) -> float:
    """Seconds that compute waits for ``collective``, of which one takes ``seconds``, in a pass of a block.

    ``products_s`` tells the seconds of a block's products in a part of its passes (`layer_kernels.PARTS`),
    but those of attention, in order.
    """
    backward = backward and not collective.repeats_forward
    if strategy.overlap_tensor:
        products = _four_products_s(
            products_s("input_gradient" if backward else "forward"), backward=backward
        )
        return collective.share * _longer_than_products_s(seconds, collective, products, strategy.tp)
    if backward and _sums_gradients(collective) and strategy.software.overlaps_input_gradients:
        weights = _leading_weight_gradients_s(products_s("weight_gradient"))[: collective.count]
        rest = (collective.count - len(weights)) * seconds
        return collective.share * (rest + sum(max(0.0, seconds - beside) for beside in weights))
    return collective.share * collective.count * seconds


def _longer_than_products_s(
    seconds: float, collective: Collective, products: list[float], ranks: int
) -> float:
    """What is longer than the product beside it, all of which but one rank's part could hide it.

    A block gathers before its 1st and 3rd product and scatters after its 2nd and 4th, in either direction
    (Wang et al. 2023, "Overlap Communication with Dependent Computation via Decomposition").
    """
    first = 0 if collective.operation == "all_gather" else 1
    beside = [one * (ranks - 1) / ranks for one in products[first::2][: collective.count]]
    return sum(seconds - TENSOR_OVERLAP * min(seconds, one) for one in beside)


def _sums_gradients(collective: Collective) -> bool:
    """Whether, in backward, it sums the gradient of a column-parallel product's input."""
    return collective.operation in ("all_reduce", "reduce_scatter")


def _leading_weight_gradients_s(products: Sequence[float]) -> list[float]:
    """Seconds of the weights' gradients of what leads into a block's MLP and into its attention."""
    return [sum(products[1:-2]), products[-1]]


def _four_products_s(products: Sequence[float], *, backward: bool) -> list[float]:
    """Seconds of a block's four products in the order of the pass; gate and up are one here."""
    place = 1 if backward else 2  # of what leads into the MLP
    rest = len(products) - 3
    return [*products[:place], sum(products[place : place + rest]), *products[place + rest :]]
