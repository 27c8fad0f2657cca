"""Whether a change leaves every result equal: the command line's output over many cases, recorded, compared.

    python benchmarks/results_net.py record DIR [--validate] [--only SUBSTRING]
    python benchmarks/results_net.py compare BEFORE AFTER [--most N]

`record` runs every case of `results_cases.txt` in this process, as a user would from the shell, and writes
what it said (stdout, stderr, exit code) and the files it left: traces, plans, schedules. `compare` says where
two records differ and exits with 1; numbers are equal to the last bit or not at all. Record once before a
change and once after it, with the package of each first on PYTHONPATH. ``--validate`` also predicts every
published run, which takes some minutes; ``--only`` records the cases whose names hold a text.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import logging
import os
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CASES, INPUTS = HERE / "results_cases.txt", HERE / "results_inputs"
VALIDATE_CASE, VALIDATE = "validate/all", "-q validate --json --samples 32 -o scored"
"""Takes some minutes, and is recorded where asked for."""
NEVER_EQUAL = frozenset({"created", "versions"})
"""Keys of what holds the moment or the machine."""
PICTURES = frozenset({".html", ".png"})
"""Files of which only the names are recorded."""
SLOW_S = 3.0
"""Processor seconds of a case that is named."""
ENVIRONMENT = {"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"}
"""What text is laid out by."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="Run the cases and write what they give.")
    recording.add_argument("directory", type=Path)
    recording.add_argument("--validate", action="store_true", help="Also predict every published run.")
    recording.add_argument("--only", default="", metavar="SUBSTRING", help="Cases whose names hold it.")
    comparing = commands.add_parser("compare", help="Say where two records differ.")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--most", type=int, default=5, help="Differences told of each case.")
    chosen = parser.parse_args()
    if chosen.command == "record":
        record(chosen.directory.absolute(), chosen.validate, chosen.only)
    else:
        sys.exit(1 if compare(chosen.before, chosen.after, chosen.most) else 0)


def record(directory: Path, validate: bool, only: str) -> None:
    """Write one file a case into ``directory``, in the place of an earlier record."""
    os.environ.update(ENVIRONMENT)
    for old in directory.glob("*.json.gz"):
        old.unlink()
    directory.mkdir(parents=True, exist_ok=True)
    chosen: dict[str, Callable[[], Any]] = {}
    for name, line in {**cases(), **({VALIDATE_CASE: VALIDATE} if validate else {})}.items():
        chosen[name] = lambda line=line: run_lines(line)
    chosen |= {f"python/{name}": call for name, call in PYTHON_CASES.items()}
    chosen = {name: call for name, call in chosen.items() if only in name}
    began = time.process_time()
    for name, call in chosen.items():
        started = time.process_time()
        write_record(directory / f"{name.replace('/', '--')}.json.gz", {"case": name, **in_directory(call)})
        if (took := time.process_time() - started) > SLOW_S:
            print(f"{name}: {took:.1f} s", file=sys.stderr)
    spent = time.process_time() - began
    write_record(directory / "record.json.gz", {"only": only, "validate": validate})
    print(f"{len(chosen)} cases of {package_root()} in {directory}; {spent:.0f} s of processor time")


def cases() -> dict[str, str]:
    """Command lines by ``group/name``."""
    found = {}
    group = start = ""
    for line in CASES.read_text().splitlines():
        if line.startswith("["):
            group, _, start = line[1:].partition("]")
        elif line and not line.startswith("#"):
            name, _, rest = line.partition(":")
            found[f"{group}/{name}"] = f"{start} {rest}".strip()
    return found


def package_root() -> str:
    """Where the package lies that is recorded."""
    import traincast

    return str(Path(traincast.__file__ or "").parent)


def in_directory(call: Callable[[], Any]) -> dict[str, Any]:
    """What ``call`` returns and the files it leaves, run in an empty directory."""
    with tempfile.TemporaryDirectory() as place, chdir(place):
        said = call()
        left = (path for path in Path().rglob("*") if path.is_file())
        paths = sorted(path for path in left if not (INPUTS / path).exists())
        return {"said": said, "files": {str(path): content(path) for path in paths}}


def content(path: Path) -> Any:
    """What a file holds: JSON as data, tables as rows, text as it is."""
    if path.suffix in PICTURES:
        return "(not recorded)"
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    if ".json" in path.suffixes:
        return json.loads(text)
    return list(csv.reader(StringIO(text))) if path.suffix == ".csv" else text


def run_lines(lines: str) -> list[dict[str, Any]]:
    """What each command line of ``lines`` said, one after the other in this directory."""
    for path in INPUTS.iterdir():
        if path.name in lines:
            Path(path.name).write_bytes(path.read_bytes())
    return [run(shlex.split(line)) for line in lines.split(" && ")]


def run(arguments: list[str]) -> dict[str, Any]:
    """Exit code and output of one command line; of a crash, what was raised."""
    from traincast.__main__ import main as traincast

    out, err = StringIO(), StringIO()
    before = sys.argv
    sys.argv = ["traincast", *arguments]
    code: Any = 0
    try:
        with warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(err):
            traincast()
    except SystemExit as end:
        code = end.code
    except Exception as error:
        code = repr(error)
    finally:
        sys.argv = before
        # The next case's log goes to its own stderr.
        logging.getLogger().handlers.clear()
    said = out.getvalue()
    stdout = json.loads(said) if "--json" in arguments and not code else said
    return {"line": shlex.join(arguments), "exit": code or 0, "stdout": stdout, "stderr": err.getvalue()}


def write_record(path: Path, data: object) -> None:
    with gzip.open(path, "wt", compresslevel=1) as file:
        json.dump(data, file)


def _python(schedule: str, cluster: str, **degrees: Any) -> Callable[[], Any]:
    """A case in Python: a plan, its round trip through a file, its trace by both engines."""

    def call() -> Any:
        import traincast as tc

        job = tc.Job(model=tc.read_model("llama3-8b"), global_batch=32, seq_len=2048)
        machine = tc.read_cluster(cluster)
        # Schedules that arrange themselves look at the cluster's seconds.
        on = machine if schedule in ("zb-1p", "zb-2p") else None
        tc.write_plan(tc.make_plan(job, tc.Strategy(schedule=schedule, **degrees), on), "plan.json")
        plan = tc.read_plan("plan.json")
        tc.write_plan(plan, "again.json")
        for engine in ("compiled", "simpy"):
            trace = tc.simulate(plan, machine, engine=engine, samples=3, seed=1)
            tc.write_trace(trace, f"{engine}.json.gz")
        return {"memory": [repr(place) for place in tc.memory(plan, machine)]}

    return call


def _strategies() -> Any:
    """Every strategy that the search looks at, in its order."""
    import traincast as tc

    job = tc.Job(model=tc.read_model("mixtral-8x7b"), global_batch=32, seq_len=2048)
    return [strategy.label for strategy in tc.strategies(job, tc.read_cluster("hgx-h100"))]


PYTHON_CASES: dict[str, Callable[[], Any]] = {
    "zb-1p": _python("zb-1p", "hgx-h100", pp=4, tp=2),
    "zb-2p": _python("zb-2p", "hgx-h100", pp=4, tp=2),
    "1f1b": _python("1f1b", "hgx-h100", pp=4, dp=2, tp=2, sharding="zero1"),
    "zbv": _python("zbv", "dgx-a100", pp=4, vp=2, dp=2, micro_batch=2),
    "fsdp": _python("1f1b", "rail-h100", dp=16, sharding="hsdp", shard_degree=8),
    "servers": _python(
        "1f1b", "hgx-h100", dp=4, gradient_exchange="parameter_server", servers=2, synchrony="stale:1"
    ),
    "strategies": _strategies,
}
"""What no command shows."""


def compare(before: Path, after: Path, most: int) -> int:
    """Tell the differences between two records, ``most`` of each case; how many cases differ."""
    old, new = read_names(before), read_names(after)
    settings = [read_record(directory / "record.json.gz") for directory in (before, after)]
    for name in sorted(new - old):
        print(f"{name}: only in {after}, not compared")
    missing = sorted(old - new)
    partial = bool(settings[1]["only"])
    if VALIDATE_CASE in missing and not settings[1]["validate"]:
        missing.remove(VALIDATE_CASE)
        print(f"{VALIDATE_CASE}: not recorded in {after}, not compared")
    if missing and partial:
        print(f"{len(missing)} cases not recorded in {after} (--only {settings[1]['only']}), not compared")
        missing = []
    for name in missing:
        print(f"{name}: missing in {after}")
    differing = len(missing)
    for name in sorted(old & new):
        a, b = (
            read_record(directory / f"{name.replace('/', '--')}.json.gz") for directory in (before, after)
        )
        found = list(differences(a, b))
        differing += bool(found)
        for text in found[:most]:
            print(f"{name}: {text}")
        if len(found) > most:
            print(f"{name}: and {len(found) - most} more differences")
    print(f"{len(old & new)} cases compared, {differing} differ")
    return differing


def read_names(directory: Path) -> set[str]:
    """The cases that a record has."""
    if not (directory / "record.json.gz").is_file():
        sys.exit(f"{directory}: no complete record; make one with `record {directory}`")
    stems = {path.name.removesuffix(".json.gz") for path in directory.glob("*.json.gz")} - {"record"}
    return {stem.replace("--", "/", 1) for stem in stems}


def read_record(path: Path) -> Any:
    with gzip.open(path, "rt") as file:
        return json.load(file)


def differences(a: Any, b: Any, path: str = "$") -> Iterator[str]:
    """Where ``b`` is not ``a``: the JSON path and both values, numbers to the last bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            if key in NEVER_EQUAL or (key == "line" and path.startswith("$.said")):
                continue
            if key not in a or key not in b:
                side = "first" if key in a else "second"
                yield f"{path}.{key}: only in the {side}: {short((a if key in a else b)[key])}"
            else:
                yield from differences(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            yield f"{path}: {len(a)} items, then {len(b)}"
        for index, (one, other) in enumerate(zip(a, b, strict=False)):
            yield from differences(one, other, f"{path}[{index}]")
    elif isinstance(a, str) and isinstance(b, str) and a != b and ("\n" in a or "\n" in b):
        yield from differences(a.split("\n"), b.split("\n"), f"{path}.lines")
    elif type(a) is not type(b) or repr(a) != repr(b):
        yield f"{path}: {short(a)} != {short(b)}"


def short(value: Any) -> str:
    """A value on one line; numbers and lines of text whole."""
    text = repr(value)
    return text if not isinstance(value, dict | list) or len(text) <= 200 else f"{text[:200]} ..."


if __name__ == "__main__":
    main()
