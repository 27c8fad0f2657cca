"""Published training of image networks: rows become jobs, and predictions come near them."""

import pytest

from traincast.sim.published.case import case_of
from traincast.sim.published.left_out import LeftOutError
from traincast.sim.published.prediction import Predictor
from traincast.sim.published.table import Row, read_table
from traincast.sim.published.validation import judge, scores


def tensorflow(**changes: str) -> Row:
    cells = {
        "model": "ResNet-50",
        "accelerator": "P100-SXM2 (DGX-1)",
        "gpus": "4",
        "gpus_per_node": "8",
        "global_batch": "256",
        "micro_batch": "64",
        "variable_update": "parameter_server",
        "precision": "fp32",
        "optimizer": "sgd",
        "step_s": "0.3",
    }
    return Row(file="t.csv", line=2, cells={**cells, **changes})


def test_variable_updates_become_strategies():
    """Servers on the workers' places, an all-reduce after backward, or a lone GPU with neither."""
    served = case_of(tensorflow()).strategy
    assert (served.dp, served.servers, served.servers_colocated) == (4, 4, True)
    assert served.gradient_exchange == "parameter_server"
    reduced = case_of(tensorflow(variable_update="replicated (NCCL)")).strategy
    assert (reduced.gradient_exchange, reduced.overlap_gradients) == ("allreduce", False)
    alone = case_of(tensorflow(gpus="1", global_batch="64"))
    assert alone.strategy.world_size == 1
    assert alone.job.model.name == "resnet50-v1"
    assert alone.job.precision == "fp32"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"variable_update": "distributed_all"}, "variable update distributed_all not modelled"),
        ({"sync": "async"}, "variable update parameter_server not modelled"),
        ({"micro_batch": ""}, "micro_batch blank"),
        ({"global_batch": "250"}, "not simulated: job.global_batch 250"),
    ],
)
def test_what_is_not_modelled_is_left_out(change, reason):
    row = tensorflow(**change)
    with pytest.raises(LeftOutError, match=reason):
        case_of(Row(file=row.file, line=2, cells={k: v for k, v in row.cells.items() if v}))


def test_tensorflow_of_2017_is_met_within_ten_percent():
    """In the mean over every other row; all of them are used."""
    rows = [row for row in read_table("tf_benchmarks_2017") if row.line % 2]
    judged = judge(rows, Predictor(samples=2))
    assert {one.reason for one in judged} == {""}
    (score,) = scores(judged)
    assert score.mean_abs_pct is not None
    assert score.mean_abs_pct < 9.5


def example(**changes: str) -> Row:
    cells = {
        "model": "PyTorch/LanguageModeling/BERT",
        "accelerator": "DGX A100 (8x A100 80GB)",
        "gpus": "8",
        "gpus_per_node": "8",
        "global_batch": "8192",
        "micro_batch": "128",
        "seq_len": "128",
        "precision": "tf32",
        "optimizer": "lamb",
        "samples_per_s": "2505",
    }
    return Row(file="t.csv", line=2, cells={k: v for k, v in {**cells, **changes}.items() if v})


def test_examples_accumulate_micro_batches():
    case = case_of(example())
    assert case.job.model.name == "bert-large"
    assert (case.job.seq_len, case.job.optimizer, case.job.precision) == (128, "adamw", "tf32")
    assert case.strategy.micro_batches(case.job) == 8
    assert case.step_s == 8192 / 2505
    images = case_of(
        example(model="TensorFlow/Classification/ConvNets/resnet50v1.5", seq_len="", optimizer="momentum")
    )
    assert (images.job.model.name, images.job.seq_len) == ("resnet50", 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seq_len": "512"}, "lengths of binned sequences not stated"),
        ({"seq_len": ""}, "seq_len blank"),
        ({"precision": "bf16"}, "precision bf16 or optimizer not modelled"),
        ({"optimizer": "adagrad"}, "precision tf32 or optimizer not modelled"),
        ({"global_batch": ""}, "global_batch blank"),
    ],
)
def test_incomplete_examples_are_left_out(change, reason):
    with pytest.raises(LeftOutError, match=reason):
        case_of(example(**change))


def test_examples_are_met_without_a_fit():
    """No constant was fitted on them: near 10 % in the mean; binned and unstated batches are left out."""
    judged = judge(read_table("nvidia_deeplearningexamples"), Predictor(samples=2))
    assert {one.reason for one in judged} == {
        "",
        "global_batch blank",
        "lengths of binned sequences not stated",
    }
    (score,) = scores(judged)
    assert score.used == 76
    assert score.mean_abs_pct is not None
    assert score.mean_abs_pct < 12
