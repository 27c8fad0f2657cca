"""One switch that never blocks: every host has a link up to it and a link down from it."""

from __future__ import annotations

import numpy as np

from .fabric import PORT, Fabric, Level, columns, link_arrays


def switch(hosts: int, *, bandwidth: float, latency: float) -> Fabric:
    """``hosts`` on one switch; ``bandwidth`` (bytes/s) and ``latency`` (s) of each port and direction."""

    def router(sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return columns(sources, hosts + targets)

    return Fabric(
        kind="switch",
        hosts=hosts,
        **link_arrays((2 * hosts, PORT, bandwidth, latency)),
        router=router,
        levels=(Level(name="switch", hosts=hosts),),
    )
