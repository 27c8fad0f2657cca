"""Parts of tensors, and the wholes that are made of them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from traincast.executor.model.pieces import Piece, assemble, cut  # noqa: E402

WHOLE = torch.arange(24.0).reshape(4, 6)


def test_what_is_cut_is_put_together_again():
    """Along one dimension in any order, along two, and what every rank has whole."""
    rows = [Piece(0, torch.tensor([3, 0])), Piece(0, torch.tensor([1, 2]))]
    assert cut(WHOLE, rows[0]).tolist() == [WHOLE[3].tolist(), WHOLE[0].tolist()]
    both = [
        Piece(0, torch.tensor(own), Piece(1, torch.tensor(columns)))
        for own in ([0, 1], [2, 3])
        for columns in ([0, 2, 4], [5, 3, 1])
    ]
    for pieces in (rows, both):
        held = [({"a": cut(WHOLE, p), "b": WHOLE}, {"a": p}) for p in pieces]
        found = assemble(held)
        assert torch.equal(found["a"], WHOLE)
        assert torch.equal(found["b"], WHOLE)
    assert torch.equal(cut(WHOLE, None), WHOLE)


def test_a_part_that_nobody_holds_is_told():
    part = Piece(0, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="the pieces of a leave out 12 of 24 values"):
        assemble([({"a": cut(WHOLE, part)}, {"a": part})])
