"""Kinds of events of update protocols, in the order in which those of one moment happen."""

(
    TURN,
    COMPUTED,
    PUSH,
    PUSH_IN,
    PUSH_THERE,
    ARRIVED,
    APPLIED,
    CONFIRMED,
    PULL_IN,
    PULL_THERE,
    PULLED,
    PUSH_HANDED,
    PULL_HANDED,
) = range(13)
"""A turn on a core is over; a worker has computed; an update is passed on to a further holder; the head of a
push is at the server's interface; all of it is; the server has handled it; it is applied; all holders have
it; the head of a pull is at the worker's interface; all of it is; the worker has handled it. The last two are
jobs of senders, after which nothing happens."""

KINDS = 13
