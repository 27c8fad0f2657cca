"""The passes over lists of actions once more, on columns, for orders that are made as columns.

Each gives the actions that its twin on lists gives; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..action import BACKWARDS, Action, Kind
from ..action_table import CODE, NUMBERS, ActionTable, among, table_from, with_more
from ..schedules.order_arrays import PASS_KINDS, OrderArrays

_GRADIENTS = (Kind.BACKWARD, Kind.INPUT_GRADIENT)


def table_of_passes(order: OrderArrays) -> ActionTable:
    """The passes of an order."""
    ranks, count = order.kind.shape
    kind = np.array([CODE[kind] for kind in PASS_KINDS])[order.kind.reshape(-1)]
    stage, micro_batch = (column.reshape(-1).astype(np.int64) for column in (order.stage, order.micro_batch))
    return table_from(np.arange(ranks + 1) * count, kind, stage=stage, micro_batch=micro_batch)


def table_with_transfers(table: ActionTable) -> ActionTable:
    """`add_transfers`: receives ahead of passes, sends behind them, where another rank has the neighbour."""
    rank_of = np.full(int(table.stage.max(initial=0)) + 3, -1)
    rank_of[table.stage + 1] = table.holder
    forward, backward = table.kind == CODE[Kind.FORWARD], among(table.kind, _GRADIENTS)
    way = np.where(forward, 1, -1)
    ahead, behind = (
        (forward | backward) & (other >= 0) & (other != table.holder)
        for other in (rank_of[table.stage + 1 - way], rank_of[table.stage + 1 + way])
    )
    receive = np.where(forward, CODE[Kind.RECV_F], CODE[Kind.RECV_B])
    send = np.where(forward, CODE[Kind.SEND_F], CODE[Kind.SEND_B])
    counts = 1 + ahead.astype(np.int64) + behind
    last = np.cumsum(counts)
    itself = last - 1 - behind
    total = int(last[-1]) if len(last) else 0
    kind = np.empty(total, dtype=np.int64)
    kind[itself] = table.kind
    kind[itself[ahead] - 1], kind[itself[behind] + 1] = receive[ahead], send[behind]
    return table_from(
        np.concatenate([[0], last])[table.first],
        kind,
        stage=np.repeat(table.stage, counts),
        micro_batch=np.repeat(table.micro_batch, counts),
    )


def table_with_reductions(table: ActionTable, buckets: Sequence[int], every: int) -> ActionTable:
    """`add_gradient_reduction`: the ``buckets`` (by stage) after each ``every``-th backward of a stage,
    behind the message that is sent on."""
    made = np.flatnonzero(among(table.kind, BACKWARDS))
    by_stage = made[np.argsort(table.stage[made], kind="stable")]
    stages = table.stage[by_stage]
    begins = np.concatenate([[0], np.flatnonzero(np.diff(stages)) + 1]) if len(stages) else stages
    turn = np.arange(len(stages)) - np.repeat(begins, np.diff([*begins, len(stages)]))
    due = np.sort(by_stage[(turn + 1) % every == 0])
    after = np.append(table.kind, -1)[due + 1] == CODE[Kind.SEND_B]
    after &= np.append(table.holder, -1)[due + 1] == table.holder[due]
    each = np.array(buckets, dtype=np.int64)[table.stage[due]]
    first = np.cumsum(each) - each
    return with_more(
        table,
        np.repeat(due + 1 + after, each),
        np.full(int(each.sum()), CODE[Kind.REDUCE_GRAD]),
        stage=np.repeat(table.stage[due], each),
        bucket=np.arange(int(each.sum())) - np.repeat(first, each),
    )


def table_with_ends(table: ActionTable, ends: Sequence[Sequence[Action]]) -> ActionTable:
    """The actions ``ends`` (by rank) behind all others."""
    added = [action for own in ends for action in own]
    return with_more(
        table,
        np.repeat(table.first[1:], [len(own) for own in ends]),
        np.array([CODE[action.kind] for action in added], dtype=np.int64),
        **{name: np.array([getattr(action, name) for action in added], dtype=np.int64) for name in NUMBERS},
    )
