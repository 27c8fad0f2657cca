"""When numba runs a kernel, and when CPython does.

Kernels are written once, in what both run alike. numba costs half a second to import, about as much to load
a cached kernel, and some seconds to compile one for the first time; so it is asked only for work that takes
longer than that interpreted, or once it is loaded anyway.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

_loaded: set[Callable] = set()


@cache
def compiled(kernel: Callable) -> Callable:
    """``kernel`` under numba, cached on disk. No fastmath: sums keep their order."""
    import numba

    dispatcher = numba.njit(cache=True)(kernel)
    folder = dispatcher.stats.cache_path
    if folder is None or not any(Path(folder).glob(f"*.{kernel.__name__}-*.nbi")):
        logger.warning("compiling the engine's %s with numba, once: some seconds", kernel.__name__)
    _loaded.add(kernel)
    return dispatcher


def worthwhile(kernel: Callable, work: int, alone: int, loaded: int) -> bool:
    """Whether ``work`` is enough for numba: ``alone`` if it must be loaded first, ``loaded`` if it was."""
    return work >= (loaded if kernel in _loaded else alone)
