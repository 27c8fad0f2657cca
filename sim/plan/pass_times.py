"""Seconds of the passes of a pipeline's stages: all that an order of passes needs to become a timeline."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTimes:
    """Seconds of one micro-batch by stage. A whole backward takes as long as its two halves together."""

    forward_s: tuple[float, ...]
    input_gradient_s: tuple[float, ...]
    """Gradient of the stage's input: what the stage before waits for (B of the zero-bubble papers)."""
    weight_gradient_s: tuple[float, ...]
    """Gradient of its weights, which nobody waits for (W)."""
    transfer_s: float = 0.0
    """From one stage to the next, either way; nothing between stages of one rank."""
    kept_share: float = 1.0
    """Share of a micro-batch's activations that stay from its input gradient to its weight gradient; zb-1p
    and zb-2p reckon with it."""

    @classmethod
    def alike(
        cls,
        stages: int,
        *,
        forward_s: float = 1.0,
        input_gradient_s: float = 1.0,
        weight_gradient_s: float = 1.0,
        transfer_s: float = 0.0,
        kept_share: float = 1.0,
    ) -> PassTimes:
        """The same seconds for all of ``stages`` stages."""
        return cls(
            forward_s=(forward_s,) * stages,
            input_gradient_s=(input_gradient_s,) * stages,
            weight_gradient_s=(weight_gradient_s,) * stages,
            transfer_s=transfer_s,
            kept_share=kept_share,
        )

    def backward_s(self, stage: int) -> float:
        """Both halves of the backward of ``stage``."""
        return self.input_gradient_s[stage] + self.weight_gradient_s[stage]
