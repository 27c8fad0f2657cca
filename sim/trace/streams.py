"""Streams of a rank: where its spans lie, one after another on each."""

from __future__ import annotations

from enum import StrEnum


class Stream(StrEnum):
    """Compute, and one stream for each dimension of communication; the values are what traces say."""

    COMPUTE = "compute"
    TP = "tp"
    CP = "cp"
    EP = "ep"
    PP = "pp"
    DP = "dp"
    PS = "ps"
    """To and from parameter servers."""
    HOST = "host"
    """Between an accelerator and its host's memory."""


COMMUNICATION = (Stream.TP, Stream.CP, Stream.EP, Stream.PP, Stream.DP, Stream.PS, Stream.HOST)
"""In the order in which they are blamed where several are exposed at once."""
