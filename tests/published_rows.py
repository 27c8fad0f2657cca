"""A row of a table of published runs, complete and sound."""

from __future__ import annotations

from traincast.sim.published.table import Row

CELLS = {
    "source": "somebody",
    "model": "GPT 1.3B",
    "layers": "4",
    "hidden": "1024",
    "heads": "16",
    "vocab": "51200",
    "seq_len": "1024",
    "accelerator": "A100-SXM-80GB",
    "gpus": "8",
    "gpus_per_node": "8",
    "tp": "2",
    "pp": "2",
    "dp": "2",
    "global_batch": "16",
    "micro_batch": "2",
    "recompute": "full",
    "precision": "bf16",
    "step_s": "1.5",
}


def row(**changes: str) -> Row:
    """A sound row with ``changes``; an empty text makes a cell blank."""
    cells = {name: text for name, text in {**CELLS, **changes}.items() if text}
    return Row(file="t.csv", line=2, cells=cells)
