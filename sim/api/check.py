"""Input files checked, every fault at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ..check import check_file
from ..display import Shown
from ..errors import Fault, InputError


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Checked(Shown):
    """What is wrong, and what is doubtful, by file in the order given."""

    errors: dict[str, tuple[Fault, ...]]
    warnings: dict[str, tuple[Fault, ...]]

    def __repr__(self) -> str:
        errors, warnings = (sum(map(len, own.values())) for own in (self.errors, self.warnings))
        return f"Checked({len(self.errors)} files: {errors} errors, {warnings} warnings)"

    @property
    def ok(self) -> bool:
        """Whether no file has an error."""
        return not any(self.errors.values())

    def raise_errors(self) -> None:
        """Raise InputError with every fault, if there is one."""
        if not self.ok:
            raise InputError([fault for own in self.errors.values() for fault in own])

    def to_dict(self) -> dict[str, Any]:
        """What `check --json` prints."""
        return {
            name: [str(fault) for own in faults.values() for fault in own]
            for name, faults in (("errors", self.errors), ("warnings", self.warnings))
        }


def check(*paths: str | os.PathLike[str]) -> Checked:
    """Check cluster, accelerator, transport, plan and model files, whatever they are.

    >>> import traincast as tc
    >>> tc.check(tc.cluster_presets()["hgx-h100"])
    Checked(1 files: 0 errors, 0 warnings)
    """
    errors, warnings = {}, {}
    for path in paths:
        found, doubtful = check_file(path)
        errors[os.fspath(path)], warnings[os.fspath(path)] = tuple(found), tuple(doubtful)
    return Checked(errors=errors, warnings=warnings)
