"""Why a row is not judged."""

from __future__ import annotations


class LeftOutError(Exception):
    """A row that cannot be judged; its text is the reason. It never leaves this package."""
