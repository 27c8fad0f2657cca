"""What this machine can do, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.util import find_spec
from pathlib import Path

from ..sim.search.result import versions


def doctor() -> dict[str, object]:
    """Versions, processor, memory, disk, back ends and accelerators of this machine.

    >>> import traincast as tc
    >>> sorted(tc.doctor())[:3]
    ['accelerators', 'backends', 'cores']
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    facts: dict[str, object] = {
        **versions(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "memory": f"{memory / 2**30:.1f} GiB",
        "disk free": f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB",
    }
    if find_spec("torch") is None:
        return {**facts, "backends": "none (torch is not installed)", "accelerators": "unknown"}
    from ..executor.parallel.process_groups import available_backends, devices

    backends = ", ".join(available_backends()) or "none"
    return {**facts, "backends": backends, "accelerators": ", ".join(devices()) or "none, the CPU is used"}


def remedies(facts: dict[str, object]) -> list[str]:
    """How to mend what is missing or would spoil a measurement, of what `doctor` found.

    >>> import traincast as tc
    >>> tc.remedies({"torch": "2.13", "load": 7.5, "cores": 8})
    ['load 7.5 on 8 cores: measurements will be noisy']
    """
    found = []
    if "torch" not in facts:
        found.append("planning works; to run plans: pip install -c constraints.txt 'traincast[run]'")
    load, cores = facts["load"], facts["cores"]
    if isinstance(load, float) and isinstance(cores, int) and load > cores / 2:
        found.append(f"load {load} on {cores} cores: measurements will be noisy")
    return found
