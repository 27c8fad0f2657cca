"""Units: exact, closed, and refused with the candidates where somebody would have to guess."""

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traincast.sim.errors import InputError
from traincast.sim.units import UNITS, UnitError, exact_quantity, format_quantity, parse_quantity

SI = [
    ("400 Gb/s", "bandwidth", 50e9),
    ("400 Gbit/s", "bandwidth", 50e9),
    ("50 GB/s", "bandwidth", 50e9),
    ("1 GiB/s", "bandwidth", 2.0**30),
    ("80 GiB", "bytes", 80 * 2.0**30),
    ("25 MB", "bytes", 25e6),
    ("5 us", "time", 5e-6),
    ("5µs", "time", 5e-6),
    ("1.5 ms", "time", 1.5e-3),
    ("2 h", "time", 7200.0),
    ("989 TFLOP/s", "compute", 989e12),
    ("1.7 GFLOP", "flops", 1.7e9),
    ("700 W", "power", 700.0),
    ("2.5 USD/h", "price", 2.5),
    ("8", "count", 8.0),
    (8, "count", 8.0),
    ("-5 us", "time", -5e-6),
    ("1e3 ms", "time", 1.0),
]


@pytest.mark.parametrize(("text", "dimension", "value"), SI)
def test_quantities_are_exact_si(text, dimension, value):
    """Decimal arithmetic: 5 us is 5e-06, where 5 * 1e-6 in floats is not."""
    assert parse_quantity(text, dimension) == value


BANDWIDTH = "expected a bandwidth, as 400 Gb/s (bits) or 50 GB/s (bytes)"
TIME = "expected a time, as 5 us or 1.5 ms"
REFUSED = [
    ("400 gb/s", "bandwidth", "'400 gb/s' is ambiguous -> expected 400 Gb/s or 400 GB/s"),
    ("400 GBPS", "bandwidth", "'400 GBPS' is ambiguous -> expected 400 Gb/s or 400 GB/s"),
    ("400G", "bandwidth", "'400G' is ambiguous -> expected 400 Gb/s or 400 GB/s"),
    ("400 Gbx/s", "bandwidth", f"'400 Gbx/s' -> {BANDWIDTH}"),
    ("25 us", "bandwidth", f"'25 us', which is a time -> {BANDWIDTH}"),
    ("400", "bandwidth", f"'400' without a unit -> {BANDWIDTH}"),
    ("1,000 GB/s", "bandwidth", f"'1,000 GB/s' -> {BANDWIDTH}"),
    ("80 gb", "bytes", "'80 gb' is ambiguous -> expected 80 GB or 80 GiB"),
    ("80 G", "bytes", "'80 G' is ambiguous -> expected 80 GB or 80 GiB"),
    (
        "80 gib",
        "bytes",
        "'80 gib' -> expected a size in bytes, as 80 GiB or 25 MB; did you mean 80 GiB?",
    ),
    (5, "time", f"5 without a unit -> {TIME}"),
    (True, "time", f"true -> {TIME}"),
    (None, "time", f"null -> {TIME}"),
    ([5], "time", f"a list of 1 -> {TIME}"),
    ("nan s", "time", f"'nan s' -> {TIME}"),
    ("inf s", "time", f"'inf s' -> {TIME}"),
    ("1e999 s", "time", f"'1e999 s' -> {TIME}"),
    ("5 m", "time", "'5 m' is ambiguous -> expected 5 ms or 5 min"),
    (
        "989 TFLOPS",
        "compute",
        "'989 TFLOPS' -> expected a compute rate, as 989 TFLOP/s; did you mean 989 TFLOP/s?",
    ),
    ("8 GB", "count", "'8 GB', which is a size in bytes -> expected a plain number, as 8"),
    ("1" * 100 + " s", "time", f"'{'1' * 79}…' -> {TIME}"),
    ("٣ s", "time", f"'٣ s' -> {TIME}"),
]


@pytest.mark.parametrize(("value", "dimension", "message"), REFUSED)
def test_what_is_missing_or_ambiguous_is_refused(value, dimension, message):
    with pytest.raises(UnitError) as caught:
        parse_quantity(value, dimension)
    assert str(caught.value) == message
    assert isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (50e9, "bandwidth", "50 GB/s"),
        (80 * 2.0**30, "bytes", "80 GiB"),
        (5e-6, "time", "5 us"),
        (0.0, "time", "0 s"),
        (989e12, "compute", "989 TFLOP/s"),
        (123456.0, "time", "123500 s"),
        (-0.0123456, "time", "-12.35 ms"),
        (math.inf, "time", "inf s"),
    ],
)
def test_quantities_for_people(value, dimension, text):
    assert format_quantity(value, dimension) == text


dimensions = st.sampled_from(sorted(UNITS))
magnitudes = st.floats(min_value=1e-15, max_value=1e18)
values = st.one_of(magnitudes, magnitudes.map(lambda v: -v), st.integers(0, 2**53).map(float))


@given(values, dimensions)
def test_exact_text_reads_back_to_the_bit(value, dimension):
    """What a file says is what the program had."""
    assert parse_quantity(exact_quantity(value, dimension), dimension) == value


@given(values, dimensions, st.integers(2, 12))
def test_text_for_people_reads_back_within_its_digits(value, dimension, digits):
    back = parse_quantity(format_quantity(value, dimension, digits), dimension)
    assert back == pytest.approx(value, rel=0.51 * 10.0 ** (1 - digits) + 1e-15, abs=0)


@given(st.integers(0, 10**6), dimensions, st.data())
def test_every_unit_reads_as_its_factor(number, dimension, data):
    """The table is what it says: n units are n times one unit."""
    unit = data.draw(st.sampled_from(sorted(UNITS[dimension])))
    assert parse_quantity(f"{number} {unit}", dimension) == float(number * UNITS[dimension][unit])


@given(st.text(max_size=30), dimensions)
def test_any_text_is_read_or_refused(text, dimension):
    """Hostile text gives a finite number or a UnitError, nothing else."""
    with suppress(UnitError):
        assert math.isfinite(parse_quantity(text, dimension))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_files_hold_no_nan(value):
    with pytest.raises(UnitError):
        exact_quantity(value, "time")
