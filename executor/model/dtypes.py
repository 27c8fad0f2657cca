"""torch's names of the formats that a job is computed in."""

from __future__ import annotations

import torch

DTYPES = {
    **{"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16},
    **dict.fromkeys(("bf16", "fp8"), torch.bfloat16),
}
"""What a job of this precision computes with and passes on; of fp8 what is between linear layers."""
