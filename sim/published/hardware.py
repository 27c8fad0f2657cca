"""What tables call an accelerator, and the files that describe it and the nodes it stands in.

A name that is not listed, or whose accelerator has no file, is not guessed: its rows are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from ..hardware.cluster import Cluster
from ..hardware.cluster_file import accelerator_presets, cluster_presets, read_accelerator, read_cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """An accelerator's file and the preset whose links its nodes have."""

    accelerator: str
    cluster: str

    @property
    def is_known(self) -> bool:
        """Whether both files exist."""
        return self.accelerator in accelerator_presets() and self.cluster in cluster_presets()


_NAMES: tuple[tuple[str, str, str], ...] = (
    # Selene is of DGX A100 with 80 GB (Narayanan et al. 2021, section 5).
    (r"A100(-SXM-80GB)? \(Selene\)", "a100-80gb-sxm", "selene"),
    (r"A100-SXM-40GB", "a100-40gb-sxm", "dgx-a100"),
    (r"A100-SXM-80GB", "a100-80gb-sxm", "dgx-a100"),
    # Memory is not stated: the 80 GB part has the same compute, and fp16 products are what these rows time.
    (r"A100-SXM \(single node\)", "a100-80gb-sxm", "dgx-a100"),
    # 500 W and HBM2e, in either report of the same team (the peak of one is said to lie between SXM and NVL).
    (r"H100-SXM (96GB|94/95GB) HBM2e", "h100-96gb-hbm2e-500w", "grand-teton-h100"),
    (r"H100-SXM-80GB|DGX-H100", "h100-sxm", "hgx-h100"),
    (r"H200-SXM-141GB", "h200-sxm", "hgx-h200"),
    (r"V100-SXM3-32GB", "v100-32gb-sxm2", "dgx-2"),
    (r"V100-SXM2-32GB \(Jean Zay\)", "v100-32gb-sxm2", "jean-zay-v100"),
    (r"V100-SXM2-16GB \(Jean Zay\)", "v100-16gb-sxm2", "jean-zay-v100"),
    (r"P100-SXM2 \(DGX-1\)", "p100-sxm2", "dgx-1-p100"),
    (r"K80 \(GCE", "k80", "gce-k80"),
    (r"K80 \(AWS p2\.8xlarge\)", "k80", "ec2-p2-8xlarge"),
    (r"DGX A100 \(8x A100 80GB\)", "a100-80gb-sxm", "dgx-a100"),
    (r"DGX A100 \(8x A100 40GB\)", "a100-40gb-sxm", "dgx-a100"),
    (r"DGX-1 \(8x V100 16GB\)", "v100-16gb-sxm2", "dgx-1-v100"),
    (r"DGX-1 \(8x V100 32GB\)", "v100-32gb-sxm2", "dgx-1-v100"),
    (r"DGX-2 \(16x V100 32GB\)", "v100-32gb-sxm2", "dgx-2"),
    (r"DGX-B200", "b200", "dgx-b200"),
)
"""Pattern at the start of a table's name, accelerator file, cluster preset; the first that matches counts."""


def hardware_of(name: str) -> Hardware | None:
    """The files of the accelerator that a table calls ``name``; None where it is not listed."""
    for pattern, accelerator, cluster in _NAMES:
        if re.match(pattern, name, re.IGNORECASE):
            return Hardware(accelerator=accelerator, cluster=cluster)
    return None


@lru_cache(maxsize=256)
def cluster_of(hardware: Hardware, gpus: int, per_node: int) -> Cluster:
    """As many nodes as ``gpus`` fill; ``per_node`` 0 is what the preset has.

    Raises:
        InputError: a file of the hardware does not exist or cannot be read.
    """
    cluster = read_cluster(hardware.cluster)
    if cluster.accelerator.name != hardware.accelerator:
        cluster = replace(cluster, accelerator=read_accelerator(hardware.accelerator))
    size = per_node or cluster.accelerators_per_node
    return replace(cluster, accelerators_per_node=size, nodes=-(-gpus // size))
