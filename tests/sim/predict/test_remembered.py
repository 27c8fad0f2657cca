"""Results are remembered for the same objects, not for equal ones, and only so many of them."""

from __future__ import annotations

from traincast.sim.predict.remembered import remembered


def test_results_belong_to_the_objects_they_were_made_of() -> None:
    """The same object is not asked again; an equal one is; the oldest are forgotten."""
    asked: list[tuple[list[int], bool]] = []

    @remembered(2)
    def total(numbers: list[int], *, twice: bool) -> int:
        asked.append((numbers, twice))
        return sum(numbers) * (2 if twice else 1)

    one, other, third = [1, 2], [1, 2], [3]
    assert [total(one, twice=False), total(one, twice=False)] == [3, 3]
    assert len(asked) == 1
    assert total(one, twice=True) == 6
    assert total(other, twice=True) == 6
    assert len(asked) == 3
    total(third, twice=False)
    total(one, twice=False)
    assert len(asked) == 5
