"""Initial values of parameters, drawn for each layer from a generator of its own."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import nn

INIT_STD = 0.02
"""Standard deviation of initial weights (GPT-2, Radford et al. 2019, as released)."""
M = TypeVar("M", bound=nn.Module)


def initialised(module: M, seed: int, index: int) -> M:
    """Matrices drawn from N(0, INIT_STD), biases 0, norms 1, from the layer's own generator."""
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
    parameters = list(module.parameters())
    generator = torch.Generator(parameters[0].device).manual_seed(int(state))
    with torch.no_grad():
        for parameter in parameters:
            if parameter.dim() > 1:
                parameter.normal_(0.0, INIT_STD, generator=generator)
    return module


def zero_biases(module: nn.Module) -> None:
    """Biases of the linear layers right below ``module``."""
    for child in module.children():
        if isinstance(child, nn.Linear) and child.bias is not None:
            nn.init.zeros_(child.bias)
