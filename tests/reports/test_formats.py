"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from traincast.reports import formats


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formats.seconds(3.2112), "3.211 s"),
        (formats.seconds(12.5), "12.5 s"),
        (formats.seconds(0.2305), "230.5 ms"),
        (formats.seconds(0.00704), "7.04 ms"),
        (formats.seconds(70e-6), "70.0 µs"),
        (formats.seconds(0), "0 s"),
        (formats.seconds(None), "–"),
        (formats.seconds(math.nan), "–"),
        (formats.duration(5.78 * 31_557_600), "5.78 years"),
        (formats.duration(11135), "3.09 h"),
        (formats.duration(120), "2 min"),
        (formats.duration(0.59), "590.0 ms"),
        (formats.duration(2e11), "6,338 years"),
        (formats.duration(math.inf), "–"),
        (formats.size(0), "0 B"),
        (formats.size(512), "512 B"),
        (formats.size(1.5 * 2**30), "1.5 GiB"),
        (formats.size(2**50), "1,024.0 TiB"),
        (formats.rate(3.35e12), "3.35 TB/s"),
        (formats.percent(0.412), "41.2 %"),
        (formats.percent(1.5, 0), "150 %"),
        (formats.percent(None), "–"),
        (formats.error(-4.42), "-4.4 %"),
        (formats.error(0.0), "+0.0 %"),
        (formats.error(math.inf), "–"),
        (formats.count(8885), "8,885"),
        (formats.count(69.41), "69.41"),
        (formats.count(8.03e9), "8.03 B"),
        (formats.flops(3.12e14), "312.0 TFLOP"),
        (formats.flops(0), "0.0 FLOP"),
        (formats.printable("a\nb\x1b[31m\u202ec"), "a b [31m c"),
    ],
)
def test_numbers_are_short_and_carry_their_unit(text: str, expected: str) -> None:
    """Each as the report and the terminal show it."""
    assert text == expected
