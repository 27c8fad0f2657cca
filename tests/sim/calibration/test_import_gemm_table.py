"""Timings of GEMMs become efficiency curves; what cannot be read is refused with its line."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_texts import A100, GEMM_TABLE

from traincast.sim.calibration.import_gemm_table import (
    GemmTiming,
    gemm_efficiency,
    import_gemm_table,
    read_gemm_table,
)
from traincast.sim.errors import InputError
from traincast.sim.hardware.cluster import Accelerator
from traincast.sim.hardware.cluster_file import read_accelerator
from traincast.sim.hardware.cluster_writer import write_accelerator
from traincast.sim.kernels.gemm_efficiency import wave_efficiency
from traincast.sim.kernels.kernel import Kernel
from traincast.sim.kernels.roofline import kernel_s


def kernel(timing: GemmTiming) -> Kernel:
    return Kernel(kind="gemm", flops=timing.flops, bytes=timing.bytes, m=timing.m, n=timing.n, k=timing.k)


def write(tmp_path, text: str = GEMM_TABLE, name: str = "gemms.csv") -> str:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(path)


def test_measured_products_come_back_from_the_curve(tmp_path):
    """A table of real timings is predicted within 12 %, in the mean within 4 %."""
    timings = read_gemm_table(write(tmp_path))
    fitted = import_gemm_table(A100, timings, device=A100.name, source="a table")
    errors = [kernel_s(fitted, kernel(timing), "bf16") / timing.seconds - 1 for timing in timings]
    assert len(errors) == 15
    assert max(map(abs, errors)) < 0.12
    assert sum(map(abs, errors)) / len(errors) < 0.04
    assert fitted.is_measured
    assert fitted.source == "its datasheet. gemm_efficiency anew: a table."


def test_compressed_tables_say_the_same(tmp_path):
    assert read_gemm_table(write(tmp_path, name="gemms.csv.gz")) == read_gemm_table(write(tmp_path))


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.tuples(*[st.integers(4, 64).map(lambda x: 256 * x)] * 3), min_size=3, max_size=30),
    fraction=st.floats(0.3, 1.0),
)
def test_a_device_of_one_efficiency_has_a_flat_curve(sizes, fraction):
    """Waves are taken out of the timings as the roofline puts them in."""
    timings = []
    for m, n, k in sizes:
        flops = 2.0 * m * n * k
        waves = wave_efficiency(Kernel(kind="gemm", flops=flops, bytes=0.0, m=m, n=n, k=k), 108)
        seconds = flops / (312e12 * fraction * waves)
        timings.append(GemmTiming(device="x", precision="bf16", m=m, n=n, k=k, seconds=seconds))
    curve = gemm_efficiency(A100, timings, "bf16")
    assert all(efficiency == pytest.approx(fraction, rel=5e-3) for _, efficiency in curve)
    assert list(curve) == sorted(curve)


def test_products_that_memory_bounds_make_no_point():
    """A thin GEMM at full memory bandwidth says nothing of arithmetic, nor do two of a size."""
    thin = GemmTiming(device="x", precision="bf16", m=16, n=8192, k=8192, seconds=1.0)
    thin = [GemmTiming(device="x", precision="bf16", m=16, n=8192, k=8192, seconds=thin.bytes / 2e12)] * 5
    thick = [GemmTiming(device="x", precision="bf16", m=4096, n=4096, k=4096, seconds=6e-4)] * 2
    assert gemm_efficiency(A100, [*thin, *thick], "bf16") == ()
    assert len(gemm_efficiency(A100, [*thin, *thick, thick[0]], "bf16")) == 1


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (
            "time_us",
            "seconds",
            "no column time_us -> expected the columns accelerator, dtype, m, n, k, time_us",
        ),
        (",321.195,", ",0,", "gemms.csv:2: time_us: '0' -> expected a time above 0"),
        (",321.195,", ",nan,", "gemms.csv:2: time_us: 'nan' -> expected a time above 0"),
        (",1536,", ",15.5,", "gemms.csv:3: n: '15.5' -> expected a whole number from 1"),
        (",1536,", ",,", "gemms.csv:3: n: '' -> expected a whole number from 1"),
        ("bfloat16,4096,2048", "int4,4096,2048", "gemms.csv:4: dtype: 'int4' -> expected fp64 |"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, old, new, found):
    with pytest.raises(InputError) as refused:
        read_gemm_table(write(tmp_path, GEMM_TABLE.replace(old, new, 1)))
    assert found in str(refused.value)


def test_broken_compression_is_refused(tmp_path):
    path = write(tmp_path, name="gemms.csv.gz")
    Path(path).write_bytes(Path(path).read_bytes()[:100])
    with pytest.raises(InputError, match="a gzip file of UTF-8 text"):
        read_gemm_table(path)


def test_timings_of_another_device_are_refused(tmp_path):
    timings = read_gemm_table(write(tmp_path))
    with pytest.raises(InputError, match="did you mean NVIDIA A100-SXM4-80GB"):
        import_gemm_table(A100, timings, device="NVIDIA A100", source="")
    slow = Accelerator(
        name="slow", kind="gpu", peak_flops={"bf16": 1e14}, memory_bytes=1e9, memory_bandwidth=2e12
    )
    with pytest.raises(InputError, match=r"bf16 GEMMs reach 2\.\d+ of peak_flops of slow"):
        import_gemm_table(slow, timings, device=A100.name, source="")
    with pytest.raises(InputError, match="no peak_flops for precision bf16"):
        import_gemm_table(
            Accelerator(
                name="k80", kind="gpu", peak_flops={"fp32": 4e12}, memory_bytes=1, memory_bandwidth=1
            ),
            timings,
            device=A100.name,
            source="",
        )


def test_the_command_writes_an_accelerator_file(tmp_path):
    """Which reads back; a cluster can name it."""
    write(tmp_path)
    arguments = ["import", "gemm-table", "gemms.csv", "--into", "a100-80gb-sxm", "-o", "mine.yaml", "--json"]
    arguments += ["--device", A100.name]
    done = subprocess.run(
        [sys.executable, "-m", "traincast", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    curve = json.loads(done.stdout)["gemm_efficiency"]["bf16"]
    written = read_accelerator(tmp_path / "mine.yaml")
    assert [list(point) for point in written.gemm_efficiency["bf16"]] == curve
    assert written.basis == "measured"
    write_accelerator(written, tmp_path / "again.yaml")
    assert read_accelerator(tmp_path / "again.yaml") == written
