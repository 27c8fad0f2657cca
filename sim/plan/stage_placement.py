"""Which pipeline rank holds which stage: round and round (loop), or there and back (V)."""

from __future__ import annotations


def loop(stage: int, ranks: int) -> int:
    """Stages go round the ranks (Narayanan et al. 2021, section 2.2)."""
    return stage % ranks


def there_and_back(stage: int, ranks: int) -> int:
    """Every second round goes back, so the first rank of two rounds holds the first and the last stage (Qi et
    al. 2024, section 6)."""
    turn, place = divmod(stage, ranks)
    return ranks - 1 - place if turn % 2 else place
