"""How far predictions for one GPU are off: calibrate, predict, train, compare, and leave a record.

    python benchmarks/gpu.py [--out DIR] [--minutes 8] [--sets NAME ...]     on a machine with GPUs
    python benchmarks/gpu.py --compare RECORD.json [--out DIR]               anywhere, from what a run left
    python benchmarks/gpu.py --predict DEVICE [--sets NAME ...] [--out DIR]  anywhere, before any run

A run measures components (kernels by shape, layers in a shallow stack, optimizer steps, what the host takes
to launch), predicts the cases of `gpu_cases.py`, none of which it calibrated on, writes the predictions down,
and only then trains the cases and compares step time and peak memory. Predictions are made in three ways:
with the accelerator file that is shipped, with kernels as measured here, and with kernels and layers as
measured here. Where there are several GPUs it also runs every strategy that the executor runs on them
(`gpu_strategies.py`). It leaves `gpu_<device>_<date>.json` with all that was measured and predicted, `.md`
with the comparison, and tables of kernels as CSV files. `--quick` is a tiny run on whatever is here.
`--predict` writes what the shipped file of a device says of cases that are still to be run, for a later run
to be held against.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

SCHEMA = "traincast.gpu-record/1"
SUSTAINED_S = 45.0
RESERVE_S = 20.0
"""Of the time that is given, what stays for comparing and writing."""
OTHER_TABLES_S, QUICK_S = 25.0, 1.0
"""What tables take but for the load, and the load of a tiny run."""
TABLES_S = 60.0
"""What raw tables take, the load included; left out where less time is left."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--compare", type=Path, metavar="RECORD", help="compare an earlier run's record again"
    )
    parser.add_argument(
        "--predict", metavar="DEVICE", help="as torch names it: predict by its shipped file, run nothing"
    )
    parser.add_argument("--sets", nargs="+", default=[], help="of the cases; all, the newest first, if none")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--quick", action="store_true", help="a tiny run on any device")
    parser.add_argument("--profile", action="store_true", help="also write the kernels of a step in order")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.predict:
        print(predict_device(options.out, options.predict, options.sets))
        return
    if options.compare:
        record = json.loads(options.compare.read_text())
        stem = options.compare.stem
    else:
        record = run(
            options.out,
            minutes=options.minutes,
            quick=options.quick,
            profile=options.profile,
            sets=options.sets,
        )
        stem = stem_of(record)
        _write(options.out / f"{stem}.json", record)
    from gpu_report import report

    text = report(record)
    (options.out / f"{stem}.md").write_text(text)
    print(text)


def _write(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(rounded(record), separators=(",", ":")) + "\n")


def predict_device(out: Path, device: str, sets: Sequence[str]) -> Path:
    """Write what the shipped file of ``device`` says of the cases of ``sets`` into ``out``."""
    from gpu_cases import cases
    from gpu_predictions import CAPABILITIES, SHIPPED, predictions

    if device not in SHIPPED:
        raise SystemExit(f"no file of {device!r} is shipped; there are {', '.join(SHIPPED)}")
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "date": date.today().isoformat(),
        "sets": list(sets),
        "machine": {"device": device, "capability": list(CAPABILITIES[SHIPPED[device]])},
        "series": [],
    }
    record["predicted"] = predictions(record, cases(*sets))
    path = out / f"{stem_of(record)}_predicted.json"
    _write(path, record)
    return path


def rounded(value: Any) -> Any:
    """``value`` with four digits of every number that is none of bytes or counts."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) and value < 1e4 else value


def stem_of(record: dict[str, Any]) -> str:
    """`gpu_nvidia-h100-80gb-hbm3_2026-11-27`, and the first of the sets that were asked for."""
    device = "-".join(record["machine"]["device"].lower().replace("(r)", "").split())
    words = [
        "".join(c for c in device if c.isalnum() or c == "-"),
        record["date"],
        *record.get("sets", [])[:1],
    ]
    return f"gpu_{'_'.join(words)}"


def run(
    out: Path,
    *,
    minutes: float,
    quick: bool,
    profile: bool,
    device: Any = None,
    sustained_s: float = SUSTAINED_S,
    sets: Sequence[str] = (),
    devices: int | None = None,
) -> dict[str, Any]:
    """All that needs the device (a torch device; None is what is here); leaves the tables in ``out``.

    ``sustained_s`` is how long the device is kept busy to see its clock fall, if there is so much time;
    ``sets`` are those of the cases, all if empty; ``devices`` how many there are to run strategies on, None
    what is here.
    """
    import torch
    from gpu_cases import QUICK_MODELS, cases, quick_cases
    from gpu_models import PROFILED
    from gpu_predictions import predictions
    from gpu_run import calibrate, kernel_profile, run_case
    from gpu_strategies import run_strategies

    from traincast.executor.calibrate.crew import machine

    start = time.perf_counter()
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def left_s() -> float:
        return 60.0 * minutes - RESERVE_S - (time.perf_counter() - start)

    def say(text: str) -> None:
        print(f"{time.perf_counter() - start:6.1f} s  {text}", file=sys.stderr, flush=True)

    record: dict[str, Any] = {
        "schema": SCHEMA,
        "date": date.today().isoformat(),
        "sets": list(sets),
        "machine": {**machine(), **device_facts()},
        "clocks_before": clocks(),
    }
    if profile:
        (out / "kernels.txt").write_text(kernel_profile(device))
        say("kernels of a step written")
    chosen = quick_cases("bf16" if device.type == "cuda" else "fp32") if quick else cases(*sets)
    record["series"] = calibrate(device, say, models=QUICK_MODELS if quick else PROFILED)
    record["predicted"] = predictions(record, chosen)
    _write(out / f"{stem_of(record)}_predicted.json", record)
    say(f"{len(chosen)} cases predicted, and written down")
    count = torch.cuda.device_count() if devices is None else devices
    if count > 1:
        record["strategies"] = run_strategies(count, device.type, say, left_s, quick=quick)
    record["steps"] = []
    for case in chosen:
        if left_s() < (0.0 if quick else TABLES_S):
            record.setdefault("left_out", []).append(case.name)
            continue
        record["steps"].append(run_case(case, device))
        say(_step_text(record["steps"][-1]))
    record["clocks_after"] = clocks()
    load_s = min(sustained_s, QUICK_S if quick else max(0.0, left_s() - OTHER_TABLES_S))
    write_tables(out, record, device, load_s, say)
    record["took_s"] = time.perf_counter() - start
    (out / f"{stem_of(record)}_predicted.json").unlink()  # it is in the record
    return record


def _step_text(step: dict[str, Any]) -> str:
    if "median_s" not in step:
        return f"{step['name']}: {step.get('out_of_memory') or step['refused']}"
    return f"{step['name']}: {step['median_s']:.4f} s, {step['memory']['peak_allocated'] / 1e9:.2f} GB"


def write_tables(
    out: Path, record: dict[str, Any], device: Any, sustained_s: float, say: Callable[[str], None]
) -> None:
    """CSV files of kernels, launches, transfers and the load, named after the record."""
    import gpu_tables as tables

    from traincast.executor.calibrate.bench import Bench

    bench, series = Bench(device, 0, {}), record["series"]
    makers: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "gemm": lambda: tables.gemms(bench, series),
        "attention": lambda: tables.attentions(series),
        "memory": lambda: [
            *tables.memory_kernels(bench, series),
            *([] if bench.on_cpu else tables.compiled_norms(bench)),
        ],
        "host": lambda: tables.launches(bench),
        "transfers": lambda: [] if bench.on_cpu else tables.transfers(bench),
        "sustained": lambda: tables.sustained(bench, sustained_s, clocks) if sustained_s > 0 else [],
    }
    machine = record["machine"]
    header = [
        f"{machine['device']}, {record['date']}, driver {machine.get('driver', 'none')}",
        f"torch {machine['torch']}, CUDA {machine.get('cuda')}, cuDNN {machine.get('cudnn')}; "
        "written by benchmarks/gpu.py",
    ]
    for name, make in makers.items():
        rows = make()
        if rows:
            (out / f"{stem_of(record)}_{name}.csv").write_text(tables.as_csv(rows, header))
        say(f"table {name}: {len(rows)} rows")


def device_facts() -> dict[str, Any]:
    """Versions and limits of the device; nothing where there is none."""
    import torch

    if not torch.cuda.is_available():
        return {}
    found = _smi("driver_version", "clocks.max.sm", "clocks.max.mem", "power.limit", "vbios_version")
    return {
        "driver": found.get("driver_version"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "capability": list(torch.cuda.get_device_capability()),
        "max_sm_clock_mhz": found.get("clocks.max.sm"),
        "max_memory_clock_mhz": found.get("clocks.max.mem"),
        "power_limit_w": found.get("power.limit"),
    }


def clocks() -> dict[str, Any]:
    """Clocks, power and temperature now."""
    found = _smi("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")
    names = ("sm_mhz", "memory_mhz", "power_w", "temperature_c")
    return dict(zip(names, found.values(), strict=True)) if found else {}


def _smi(*fields: str) -> dict[str, str]:
    """What nvidia-smi says of the first device; it is only asked."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", "-i", "0"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields, (word.strip() for word in answer.stdout.split(",")), strict=False))


if __name__ == "__main__":
    main()
