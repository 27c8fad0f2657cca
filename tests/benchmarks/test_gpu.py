"""`benchmarks/gpu.py` on an injected device, and the record that it left on an H200."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from statistics import median

import pytest

import traincast

torch = pytest.importorskip("torch")

from traincast.executor.calibrate import bench as benches  # noqa: E402
from traincast.executor.calibrate import kernels, layers  # noqa: E402

BENCHMARKS = Path(traincast.__file__).parent / "benchmarks"
RECORD = BENCHMARKS / "results" / "gpu_nvidia-h200_2026-11-27.json"


@pytest.fixture(scope="module", autouse=True)
def path():
    """The benchmark's modules import each other by their names, as a script's do."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """(record, directory) of a tiny run on the CPU, every grid made small."""
    import gpu
    import gpu_run

    directory = tmp_path_factory.mktemp("gpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a rank of a run has
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "GEMMS", ((64, 64, 64), (128, 128, 128)))
        patch.setattr(kernels, "MEMORY_BYTES", (12 * 1024, 12 * 4096))
        patch.setattr(kernels, "ATTENTIONS", kernels.ATTENTIONS[:2])
        patch.setattr(benches, "SAMPLE_S", 1e-4)
        patch.setattr(layers, "LAYERS_S", 0.0)
        patch.setattr(gpu_run, "STEPS_S", 0.0)
        device = torch.device("cpu")
        record = gpu.run(directory, minutes=9.0, quick=True, profile=False, device=device, sustained_s=0.1)
    torch.set_num_threads(threads)
    return record, directory


def test_a_run_trains_every_case_and_measures_components(quick):
    record, _ = quick
    names = [step["name"] for step in record["steps"]]
    assert len(names) == len(set(names)) == 7
    assert {"quick-gpt2 fp16 2x64 m1", "quick-gpt2 fp32 2x64 m1 momentum dropout"} <= set(names)
    assert "quick-llama fp32 1x64 m2 full" in names
    ran = record["steps"]
    assert all(step["median_s"] > 0 and len(step["step_s"]) >= 4 for step in ran)
    assert {s["what"] for s in record["series"]} >= {"gemm", "memory", "attention", "forward", "optimizer"}
    assert "left_out" not in record


def test_a_run_leaves_tables_with_device_and_date(quick):
    record, directory = quick
    tables = sorted(directory.glob("*.csv"))
    assert len(tables) == 5
    for table in tables:
        lines = table.read_text().splitlines()
        assert record["date"] in lines[0]
        assert record["machine"]["torch"] in lines[1]
        rows = list(csv.DictReader(lines[2:]))
        assert rows
        assert all(len(row) == len(rows[0]) for row in rows)


def test_what_was_run_is_compared_case_by_case(quick):
    """From the record as it is written: rounded, and through JSON."""
    from gpu import rounded
    from gpu_report import compare, report

    record = json.loads(json.dumps(rounded(quick[0])))
    rows = compare(record)
    names = [step["name"] for step in record["steps"] if step["precision"] == "fp32"]
    assert [row.case.name for row in rows] == names  # a CPU's curves are of fp32 alone
    assert all(set(row.predictions) == {"kernels", "layers"} for row in rows)  # no file of this device
    text = report(record)
    assert all(name in text for name in names)
    assert report(record) == text


def test_what_is_predicted_is_written_down_before_anything_is_trained(tmp_path, monkeypatch):
    """The file of predictions is there when the first case runs, and the record holds the same in the end."""
    import gpu
    import gpu_run

    seen = []

    def trained(case, device):
        (written,) = tmp_path.glob("*_predicted.json")
        seen.append(json.loads(written.read_text())["predicted"]["cases"][case.name])
        raise torch.OutOfMemoryError("enough")

    earlier = json.loads(RECORD.read_text())
    monkeypatch.setattr(gpu_run, "calibrate", lambda *_, **__: earlier["series"])
    monkeypatch.setattr(gpu, "write_tables", lambda *_: None)
    monkeypatch.setattr(gpu, "device_facts", lambda: earlier["machine"])
    monkeypatch.setattr(gpu_run, "_trainer", trained)
    device = torch.device("cpu")
    record = gpu.run(tmp_path, minutes=9.0, quick=True, profile=False, device=device, sustained_s=0.0)
    assert not list(tmp_path.glob("*_predicted.json"))
    held = json.loads(json.dumps(gpu.rounded(record)))["predicted"]["cases"]
    assert seen == list(held.values())
    assert all(set(one) == {"shipped", "kernels", "layers"} for one in seen)


def test_a_case_that_the_executor_refuses_says_why():
    import gpu_cases
    import gpu_run

    gpu_cases.quick_cases("fp32")
    case = gpu_cases.Case(model="quick-llama", seq_len=64, micro_batch=2, precision="fp8")
    step = gpu_run.run_case(case, torch.device("cpu"))
    assert "compute capability 8.9" in step["refused"]


def test_predictions_of_a_shipped_file_need_no_device(tmp_path):
    """For a later run to be held against: every case of a set, by the file of the device."""
    import gpu
    from gpu_cases import cases

    path = gpu.predict_device(tmp_path, "NVIDIA H200", ["second"])
    found = json.loads(path.read_text())["predicted"]
    assert list(found["cases"]) == [case.name for case in cases("second")]
    assert all(one["shipped"]["step_s"] > 0 for one in found["cases"].values())


def test_time_that_is_short_leaves_cases_out(tmp_path, monkeypatch):
    """Only what there is time for is run, and the rest is named."""
    import gpu
    import gpu_cases
    import gpu_run

    monkeypatch.setattr(gpu_run, "calibrate", lambda *_, **__: [])
    monkeypatch.setattr(gpu, "write_tables", lambda *_: None)
    record = gpu.run(tmp_path, minutes=0.0, quick=False, profile=False, device=torch.device("cpu"))
    assert record["steps"] == []
    assert record["left_out"] == [case.name for case in gpu_cases.cases()]


def test_a_device_without_memory_for_a_case_says_so(monkeypatch):
    import gpu_cases
    import gpu_run

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr(gpu_run, "_steps", full)
    case = gpu_cases.quick_cases("fp32")[0]
    step = gpu_run.run_case(case, torch.device("cpu"))
    assert step["out_of_memory"] == "CUDA out of memory. Tried to allocate 2 GiB."
    assert "median_s" not in step


def test_no_case_is_of_a_micro_batch_that_layers_are_profiled_at():
    from gpu_cases import PROFILED_MICRO_BATCHES, cases

    assert not {case.micro_batch for case in cases()} & set(PROFILED_MICRO_BATCHES)
    names = [case.name for case in cases()]
    assert len(names) == len(set(names))


def test_sets_that_are_judged_blind_have_no_case_and_no_model_of_the_others():
    """At least 20 cases in each; where a model was seen before, its precision and sequence were not."""
    from gpu_cases import SETS

    own = {name: {(c.model, c.seq_len, c.precision) for c in made()} for name, made in SETS.items()}
    assert all(len(made()) >= 20 for made in SETS.values())
    assert not own["second"] & own["first"]
    assert not own["third"] & (own["first"] | own["second"])


@pytest.mark.parametrize(
    ("name", "count", "shipped", "kernels"),
    [
        ("second", 26, 0.080, 0.025),
        ("third", 19, 0.070, 0.027),
    ],
)
def test_blind_sets_were_predicted_as_the_readme_says(name, count, shipped, kernels):
    """As written down before the cases were trained, whatever today's model says of them."""
    from gpu_cases import set_of
    from gpu_report import compare, summary

    record = json.loads((BENCHMARKS / "results" / f"gpu_nvidia-h200_2026-11-28_{name}.json").read_text())
    rows = [row for row in compare(record) if set_of(row.case) == name]
    assert len(rows) == count
    for way, expected in (("shipped", shipped), ("kernels", kernels)):
        found = summary(row.step_error(way, before=True) for row in rows)["median"]
        assert found == pytest.approx(expected, abs=0.0005)
    assert median(abs(row.memory_error("kernels", before=True)) for row in rows) < 0.003


def test_the_record_of_an_h200_is_predicted_as_well_as_its_page_says():
    """43 steps, none in a fit: the figures of the README, from the record alone."""
    from gpu_report import compare, report, summary

    record = json.loads(RECORD.read_text())
    rows = compare(record)
    assert len(rows) == 43
    errors = {way: summary(row.step_error(way) for row in rows)["median"] for way in rows[0].predictions}
    assert errors == {
        "shipped": pytest.approx(0.065, abs=0.0005),
        "kernels": pytest.approx(0.030, abs=0.0005),
        "layers": pytest.approx(0.042, abs=0.0006),
    }
    assert median(abs(row.memory_error("layers")) for row in rows) < 0.01
    assert max(abs(row.memory_error("layers")) for row in rows) < 0.02
    assert report(record) == RECORD.with_suffix(".md").read_text()
