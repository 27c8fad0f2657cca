"""How to train, with no hardware in it: degrees of parallelism, schedule, gradient exchange, synchrony.

A Strategy checks itself against a Job and reports every broken rule at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from .errors import Fault
from .job import Job

SCHEDULES = ("gpipe", "1f1b")
GRADIENT_EXCHANGES = ("allreduce", "parameter_server")
SYNCHRONIES = ("sync", "async")
RECOMPUTES = ("none", "selective", "full")
COLLECTIVE_ALGORITHMS = ("auto", "ring", "tree")
DDP_BUCKET_BYTES = 25 * 2**20
"""torch.nn.parallel.DistributedDataParallel, `bucket_cap_mb` default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One way to train. The degrees multiply to the number of workers."""

    dp: int = 1
    """Data-parallel replicas."""
    tp: int = 1
    """Tensor-parallel ranks that share every layer."""
    pp: int = 1
    """Pipeline ranks, one stage each."""
    micro_batch: int = 1
    """Samples of one micro-batch."""
    schedule: str = "1f1b"
    """Order of forward and backward on a pipeline rank."""
    recompute: str = "none"
    """What backward computes again instead of keeping: nothing, attention, or the whole block."""
    gradient_exchange: str = "allreduce"
    servers: int = 0
    """Parameter servers; each holds an equal shard of the layers' parameters."""
    synchrony: str = "sync"
    collective_algorithm: str = "auto"
    bucket_bytes: int = DDP_BUCKET_BYTES
    """Gradients are reduced in buckets of about this size."""

    @property
    def workers(self) -> int:
        """Ranks that compute gradients."""
        return self.dp * self.tp * self.pp

    @property
    def world_size(self) -> int:
        """All ranks, servers included."""
        return self.workers + self.servers

    def micro_batches(self, job: Job) -> int:
        """Micro-batches of one replica in one step."""
        return job.global_batch // (self.dp * self.micro_batch)

    @property
    def label(self) -> str:
        """Short and unique, as `dp2 pp2 1f1b mb4` or `ps-async dp2+1 mb4`."""
        if self.gradient_exchange == "parameter_server":
            parts = [f"ps-{self.synchrony}", f"dp{self.dp}+{self.servers}"]
        else:
            parts = [f"{name}{degree}" for name, degree in self._degrees() if degree > 1] or ["single"]
        if self.pp > 1:
            parts.append(self.schedule)
        parts.append(f"mb{self.micro_batch}")
        if self.recompute != "none":
            parts.append(f"recompute-{self.recompute}")
        if self.collective_algorithm != "auto":
            parts.append(self.collective_algorithm)
        return " ".join(parts)

    def _degrees(self) -> list[tuple[str, int]]:
        return [("dp", self.dp), ("tp", self.tp), ("pp", self.pp)]

    def to_dict(self) -> dict[str, object]:
        """The fields as plain values."""
        return asdict(self)

    def faults(self, job: Job, world_size: int | None = None) -> list[Fault]:
        """Every rule this strategy breaks for ``job`` (on ``world_size`` ranks, where given)."""
        return [*self._own_faults(), *self._server_faults(), *self._job_faults(job, world_size)]

    def _own_faults(self) -> list[Fault]:
        faults = [
            Fault(path=f"strategy.{field}", found=str(getattr(self, field)), expected="at least 1")
            for field in ("dp", "tp", "pp", "micro_batch", "bucket_bytes")
            if getattr(self, field) < 1
        ]
        choices = {
            "schedule": SCHEDULES,
            "recompute": RECOMPUTES,
            "gradient_exchange": GRADIENT_EXCHANGES,
            "synchrony": SYNCHRONIES,
            "collective_algorithm": COLLECTIVE_ALGORITHMS,
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                faults.append(
                    Fault(
                        path=f"strategy.{field}",
                        found=str(getattr(self, field)),
                        expected=" | ".join(allowed),
                    )
                )
        return faults

    def _server_faults(self) -> list[Fault]:
        if self.gradient_exchange != "parameter_server":
            faults = []
            if self.servers:
                faults.append(
                    Fault(
                        path="strategy.servers",
                        found=str(self.servers),
                        expected="0 with gradient_exchange allreduce",
                    )
                )
            if self.synchrony == "async":
                faults.append(
                    Fault(
                        path="strategy.synchrony",
                        found="async",
                        expected="sync with gradient_exchange allreduce",
                        hint="asynchronous updates go through gradient_exchange: parameter_server",
                    )
                )
            return faults
        faults = []
        if self.servers < 1:
            faults.append(Fault(path="strategy.servers", found=str(self.servers), expected="at least 1"))
        for field in ("tp", "pp"):
            if getattr(self, field) > 1:
                faults.append(
                    Fault(
                        path=f"strategy.{field}",
                        found=str(getattr(self, field)),
                        expected="1 with gradient_exchange parameter_server",
                    )
                )
        return faults

    def _job_faults(self, job: Job, world_size: int | None) -> list[Fault]:
        if min(self.dp, self.tp, self.pp, self.micro_batch) < 1:
            return []
        faults = []
        decoder = job.model.decoder
        if world_size is not None and self.world_size != world_size:
            servers = f" + {self.servers} servers" if self.servers else ""
            faults.append(
                Fault(
                    path="strategy",
                    found=f"dp {self.dp} × tp {self.tp} × pp {self.pp}{servers} = {self.world_size} ranks",
                    expected=f"{world_size} ranks",
                    hint="change a degree until the product is the world size",
                )
            )
        at_once = self.dp * self.micro_batch
        if job.global_batch % at_once:
            faults.append(
                Fault(
                    path="job.global_batch",
                    found=str(job.global_batch),
                    expected=f"a multiple of dp {self.dp} × micro_batch {self.micro_batch} = {at_once}",
                )
            )
        if self.pp > decoder.layers:
            faults.append(
                Fault(
                    path="strategy.pp",
                    found=str(self.pp),
                    expected=f"at most {decoder.layers}, the model's layers",
                )
            )
        shared = {"attention heads": decoder.heads, "key-value heads": decoder.kv_heads, "ffn": decoder.ffn}
        for what, size in shared.items():
            if size % self.tp:
                faults.append(
                    Fault(path="strategy.tp", found=str(self.tp), expected=f"a divisor of the {size} {what}")
                )
        if self.servers > decoder.layers + 2:
            faults.append(
                Fault(
                    path="strategy.servers",
                    found=str(self.servers),
                    expected=f"at most {decoder.layers + 2}, one for every layer",
                )
            )
        return faults
