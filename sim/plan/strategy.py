"""How to train, with no hardware in it: the fields of a strategy and how many ranks and batches they make.

What else follows from a strategy has a file of its own: `strategy_label.py`, `sharding.py`, `step_counts.py`,
`mixed_precision.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from .choices import (
    ATTENTIONS,
    COLLECTIVE_ALGORITHMS,
    CP_EXCHANGES,
    EXPERT_DISPATCHES,
    FLASH,
    GRADIENT_EXCHANGES,
    OFFLOADS,
    RECOMPUTES,
    SHARDINGS,
    SYNCHRONIES,
    parse_synchrony,
)
from .job import Job
from .software_stacks import STACKS, Stack
from .strategy_fields import DDP_BUCKET_BYTES, StrategyFields
from .strategy_label import strategy_label

__all__ = [
    "ATTENTIONS",
    "COLLECTIVE_ALGORITHMS",
    "CP_EXCHANGES",
    "DDP_BUCKET_BYTES",
    "EXPERT_DISPATCHES",
    "FLASH",
    "GRADIENT_EXCHANGES",
    "OFFLOADS",
    "RECOMPUTES",
    "SHARDINGS",
    "SYNCHRONIES",
    "Strategy",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy(StrategyFields):
    """One way to train. dp × cp × tp × pp is the number of workers; experts divide over dp × cp."""

    @property
    def software(self) -> Stack:
        """The stack that `stack` names."""
        return STACKS[self.stack]

    @property
    def workers(self) -> int:
        """Ranks that compute gradients."""
        return self.dp * self.tp * self.pp * self.cp

    @property
    def world_size(self) -> int:
        """All ranks, servers of their own included."""
        return self.workers + (0 if self.servers_colocated else self.servers)

    @property
    def stages(self) -> int:
        """Pipeline stages over all ranks."""
        return self.pp * self.vp

    @property
    def replicas(self) -> int:
        """Ranks that hold the same parameters, but for experts: dp × cp."""
        return self.dp * self.cp

    @property
    def shards(self) -> int:
        """Ranks over which a replica's states are divided: 1 without sharding."""
        if self.sharding == "ddp":
            return 1
        return self.shard_degree if self.sharding == "hsdp" else self.replicas

    @property
    def protocol(self) -> tuple[str, int]:
        """`synchrony` as its name and number: ("stale", 2); 0 where there is none."""
        return parse_synchrony(self.synchrony) or (self.synchrony, 0)

    @property
    def offloads_activations(self) -> bool:
        """Whether activations wait for their backward in host memory."""
        return self.offload in ("activations", "both")

    def micro_batches(self, job: Job) -> int:
        """Micro-batches of one replica in one step."""
        return job.global_batch // (self.dp * self.micro_batch)

    @property
    def label(self) -> str:
        """Short and unique, as `dp2 pp2 1f1b mb4` or `ps-async dp2+1 mb4`."""
        return strategy_label(self)

    def to_dict(self) -> dict[str, object]:
        """The fields as plain values."""
        return {**asdict(self), "stage_layers": list(self.stage_layers)}
