"""Networks that are no decoders: published sizes, what their layers compute and keep, plans of them."""

import json
from dataclasses import replace

import pytest

from traincast.sim.costs.costs import Costs
from traincast.sim.errors import InputError
from traincast.sim.hardware.cluster_file import read_cluster
from traincast.sim.kernels.flops import hardware_flops_per_token, model_flops_per_token
from traincast.sim.kernels.layer_kernels import layer_kernels
from traincast.sim.memory.layer_bytes import kept_bytes
from traincast.sim.memory.peak import memory
from traincast.sim.model.hf_config import read_model
from traincast.sim.model.model import Model
from traincast.sim.model.model_file import read_model_file, write_model
from traincast.sim.model.networks.builder import Builder
from traincast.sim.model.networks.network import Network
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.plan_file import plan_from_dict, plan_to_dict
from traincast.sim.plan.strategy import Strategy
from traincast.sim.plan.strategy_rules import strategy_faults
from traincast.sim.plan.traffic import message_bytes
from traincast.sim.predict.simulate import simulate

PUBLISHED = {
    "alexnet": (61_100_840, 0.714),
    "vgg16": (138_357_544, 15.47),
    "vgg19": (143_667_240, 19.63),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
    "resnet152": (60_192_808, 11.514),
    "inception-v3": (23_834_568, 5.713),
    "inception-v3-aux": (27_161_264, 5.719),
    "resnext101-32x4d": (44_177_704, 7.99),
}
"""Parameters and GFLOPS (10^9 multiplications and additions) as torchvision documents them; Inception's
parameters there are with the auxiliary classifier."""


def job(name: str = "resnet50", **changes) -> Job:
    default = {"global_batch": 64, "seq_len": 1, "optimizer": "momentum", "precision": "fp32"}
    return Job(model=read_model(name), **{**default, **changes})


def small() -> Model:
    """An image of 8 × 8 through two convolutions beside each other, then a product."""
    b = Builder()
    x = b.relu(b.batch_norm(b.conv(b.image(3, 8, 8), 16, 3, padding=1)))
    y = b.add(b.conv(x, 16, 3, padding=1), x)
    b.loss(b.linear(b.global_pool(y), 10))
    return Model(name="small", network=b.network(classes=10))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    """Parameters to the last one, multiplications within 1 %."""
    parameters, giga = PUBLISHED[name]
    model = read_model(name)
    assert model.parameters == parameters
    assert model_flops_per_token(model, 1) / 6e9 == pytest.approx(giga, rel=0.01)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # transformers' BertForPreTraining(BertConfig()) and of bert-large-uncased, `num_parameters()`
        ("bert-base", 110_106_428),
        ("bert-large", 336_226_108),
        # Vaswani et al. 2017, table 3: 213 million with 37,000 entries of the table, here 33,708
        ("transformer-big", 213_000_000 - (37_000 - 33_708) * 1024),
        ("mlp", 784 * 4096 + 2 * 4096**2 + 40_960 + 3 * 4096 + 10),
    ],
)
def test_parameters_of_networks_over_sequences_and_rows(name, parameters):
    assert read_model(name).parameters == pytest.approx(parameters, rel=0.01 if name[0] == "t" else 0)


def test_bert_by_hand():
    """A block has 12 h² values in its matrices; 20 of 128 tokens are predicted; scores grow with length."""
    network = read_model("bert-large").network
    assert network is not None
    hidden, vocabulary = 1024, 30_522
    blocks = 24 * 2 * (12 * hidden**2)
    head = 2 * (hidden**2 + hidden * vocabulary) * 20 / 128
    for length in (128, 512):
        assert network.flops(length) == pytest.approx(blocks + head + 24 * 4 * hidden * length)
    own = Job(model=read_model("bert-large"), global_batch=8, seq_len=128, precision="fp16")
    flash = sum(kept_bytes(own, Strategy(micro_batch=8), one.kind) for one in own.model.layers)
    unfused = Strategy(micro_batch=8, attention="unfused")
    scores = 24 * 16 * 128 * 128 * 8 * (2 * 2 + 1)
    assert sum(kept_bytes(own, unfused, one.kind) for one in own.model.layers) == pytest.approx(
        flash + scores
    )


def test_recurrence_is_one_token_after_the_other():
    """GNMT's states are multiplied once for each token, in products as small as the batch."""
    own = Job(model=read_model("gnmt"), global_batch=64, seq_len=25, precision="fp16")
    kinds = [one.kind for one in own.model.layers]
    steps = [
        kernel
        for kind in kinds
        for kernel in layer_kernels(own, Strategy(micro_batch=64), kind, "forward")
        if kernel.m == 64
    ]
    assert len(steps) == 25 * 9
    assert {(kernel.n, kernel.k) for kernel in steps} == {(4096, 1024)}


def test_looked_up_tables_cost_what_is_read():
    """Of DLRM's four billion parameters a click reads 26 rows."""
    model = read_model("dlrm")
    own = Job(model=model, global_batch=64, seq_len=1, precision="fp16")
    moved = sum(
        kernel.bytes
        for one in model.layers
        for part in ("forward", "backward")
        for kernel in layer_kernels(own, Strategy(micro_batch=64), one.kind, part)
    )
    assert model.parameters > 4e9
    assert moved < 64 * 1e6


def test_names_are_read_as_people_write_them():
    assert read_model("ResNet-50").name == "resnet50"
    assert read_model("InceptionV3").name == "inception-v3"
    with pytest.raises(InputError, match="did you mean resnet50"):
        read_model("resnet5o")


def test_layers_by_hand():
    """Parameters, FLOPs, what is kept and what crosses the cuts, counted on paper."""
    network = small().network
    assert network is not None
    assert [part.parameters for part in network.parts] == [3 * 9 * 16 + 32, 16 * 9 * 16, 170]
    assert network.flops() == 2 * (64 * 16 * 27 + 64 * 16 * 144 + 160)
    image, plane = 3 * 64, 16 * 64
    # The image and the norm's input, the ReLU's output once for both who read it; the pooled row; the logits.
    assert [part.kept for part in network.parts] == [image + 2 * plane, 16, 10]
    # Behind the first the ReLU's output, behind the second the mean of every channel.
    assert [part.passed for part in network.parts] == [plane, 16, 0]


def test_kernels_of_a_convolution():
    """Forward, gradient of the input and of the weights have the same FLOPs; an image's own gradient is not
    wanted."""
    model = small()
    own = Job(model=model, global_batch=4, seq_len=1, precision="bf16")
    strategy = Strategy(micro_batch=4)
    first, second = model.layers[0].kind, model.layers[1].kind

    def products(kind, part):
        return [k for k in layer_kernels(own, strategy, kind, part) if k.kind in ("gemm", "convolution")]

    assert [(k.m, k.n, k.k) for k in products(second, "forward")] == [(256, 16, 144)]
    assert [(k.m, k.n, k.k, k.weights) for k in products(second, "backward")] == [
        (256, 16, 144, False),
        (16, 144, 256, True),
    ]
    assert [k.flops for k in products(second, "backward")] == [2 * 256 * 16 * 144] * 2
    assert [k.weights for k in products(first, "backward")] == [True]
    halves = [*layer_kernels(own, strategy, second, "input_gradient")]
    halves += layer_kernels(own, strategy, second, "weight_gradient")
    whole = layer_kernels(own, strategy, second, "backward")
    assert sorted(map(str, halves)) == sorted(map(str, whole))


def test_windows_of_three_are_computed_by_winograd_where_that_is_faster():
    """In fp32 a 3 × 3 convolution of many channels takes less than a direct one at peak; one of 1 × 1 of
    as many FLOPs does not."""
    cluster = read_cluster("dgx-1-p100")

    def forward(window, channels):
        b = Builder()
        b.conv(b.image(channels, 56, 56), channels, window, padding=window // 2)
        model = Model(name="one", network=b.network())
        own = Job(model=model, global_batch=64, seq_len=1, precision="fp32")
        seconds = Costs(cluster, own, Strategy(micro_batch=64)).compute.forward_s(model.layers[0])
        return 64 * model_flops_per_token(model, 1) / 3 / seconds / cluster.accelerator.peak_flops["fp32"]

    assert forward(3, 256) > 1.0
    assert forward(1, 768) < 1.0


def test_more_images_take_no_less_and_each_takes_no_more():
    cluster = read_cluster("dgx-1-p100")
    for name in ("resnet50", "inception-v3", "vgg16", "alexnet"):
        steps = {}
        for size in (1, 2, 8, 32):
            own = job(name, global_batch=size)
            compute = Costs(cluster, own, Strategy(micro_batch=size)).compute
            steps[size] = sum(compute.forward_s(one) + compute.backward_s(one) for one in own.model.layers)
        assert sorted(steps.values()) == list(steps.values())
        assert steps[32] / 32 < steps[8] / 8 < steps[1]


def test_stages_share_out_the_flops():
    """each of four stages of VGG-16 has layers, none twice; the parts differ by less than a layer."""
    own = job("vgg16")
    plan = make_plan(own, Strategy(pp=4, dp=1, micro_batch=8))
    network = own.model.network
    assert network is not None
    assert [i for stage in plan.stages for i in stage.layer_indices] == list(range(16))
    flops = [part.operations[0].flops for part in network.parts]
    shares = [sum(flops[i] for i in stage.layer_indices) for stage in plan.stages]
    assert max(shares) - sum(flops) / 4 <= max(flops)


def test_messages_are_what_crosses_the_cut():
    """VGG-16 passes 7 × 7 × 512 values behind its last convolution, 64 × 224 × 224 behind its first."""
    own = job("vgg16")
    strategy = Strategy(pp=2, micro_batch=2)
    layers = own.model.layers
    assert message_bytes(own, strategy, layers[0]) == 2 * 64 * 224 * 224 * 4
    assert message_bytes(own, strategy, layers[12]) == 2 * 512 * 7 * 7 * 4
    assert message_bytes(own, strategy) == 2 * 64 * 224 * 224 * 4


@pytest.mark.parametrize(
    "strategy",
    [
        Strategy(micro_batch=64),
        Strategy(dp=8, micro_batch=8),
        Strategy(dp=8, micro_batch=8, sharding="fsdp"),
        Strategy(dp=2, pp=4, micro_batch=4, recompute="full"),
        Strategy(dp=4, servers=2, gradient_exchange="parameter_server", micro_batch=16),
        Strategy(dp=4, servers=2, gradient_exchange="parameter_server", micro_batch=16, synchrony="async"),
    ],
    ids=lambda s: s.label,
)
def test_plans_are_written_read_and_simulated(strategy):
    """As any other model's; the file holds all that the simulation needs."""
    plan = make_plan(job(), strategy)
    read = plan_from_dict(json.loads(json.dumps(plan_to_dict(plan))))
    assert read.job.model.network == plan.job.model.network
    assert read.stages == plan.stages
    assert read.actions == plan.actions
    cluster = read_cluster("dgx-1-p100")
    step = simulate(read, cluster).step_time_s
    assert step == simulate(plan, cluster).step_time_s
    costs = Costs(cluster, plan.job, strategy)
    alone = sum(costs.compute.forward_s(one) + costs.compute.backward_s(one) for one in plan.job.model.layers)
    assert step >= alone * plan.micro_batches / strategy.pp


def test_what_divides_decoders_is_refused():
    own = job()
    found = strategy_faults(
        Strategy(tp=2, cp=2, ep=2, sequence_parallel=True, recompute="selective", micro_batch=64), own
    )
    paths = {fault.path for fault in found}
    assert {"strategy.tp", "strategy.cp", "strategy.ep"} <= paths
    assert {"strategy.sequence_parallel", "strategy.recompute"} <= paths
    assert [f.path for f in job(seq_len=128).faults()] == ["job.seq_len"]
    assert "at most 54 stages" in str(strategy_faults(Strategy(pp=64, micro_batch=1), own)[0])
    layers = own.model.blocks
    (fault,) = strategy_faults(Strategy(pp=2, micro_batch=1, stage_layers=(0, layers)), own)
    assert "none of them 0" in str(fault)


def test_memory_counts_what_is_kept():
    """Weights, gradients, momentum, and for each of 32 images what all layers keep; half of it in bf16."""
    own, strategy = job(global_batch=32), Strategy(micro_batch=32)
    cluster = read_cluster("dgx-1-p100")
    place = memory(make_plan(own, strategy), cluster)[0]
    network = own.model.network
    assert network is not None
    kept = 32 * sum(4 * part.kept + part.kept_bytes for part in network.parts)
    assert place.activations_bytes == kept
    assert place.weights_bytes == place.gradients_bytes == place.optimizer_bytes == 4 * 25_557_032
    assert place.logits_bytes == 0
    half = replace(own, precision="bf16")
    assert kept_bytes(half, strategy, own.model.layers[1].kind) == pytest.approx(
        kept_bytes(own, strategy, own.model.layers[1].kind) / 2, rel=0.2
    )
    whole = hardware_flops_per_token(own.model, 1, "full")
    assert whole == pytest.approx(model_flops_per_token(own.model, 1) * 4 / 3)


def test_a_model_file_is_the_model(tmp_path):
    model = small()
    path = tmp_path / "small.json"
    write_model(model, path)
    assert read_model(path) == model
    assert read_model_file(path).layers == model.layers
    assert Network.from_dict(json.loads(path.read_text())["network"]) == model.network


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["network"].pop("parts"), "network.parts: missing"),
        (lambda d: d["network"]["parts"][0].pop("parameters"), "network.parts[0].parameters: missing"),
        (
            lambda d: d["network"]["parts"][0].update(kept=-1),
            "network.parts[0].kept: -1 -> expected at least 0",
        ),
        (
            lambda d: d["network"]["parts"][0].update(kept="1"),
            "network.parts[0].kept: '1' -> expected a number",
        ),
        (lambda d: d["network"]["parts"][1]["operations"][0].update(kind="fft"), "operations[0].kind: fft"),
        (lambda d: d["network"]["parts"][1]["operations"][0].update(rows=0), "operations[0].rows: 0"),
        (lambda d: d["network"]["parts"][1]["operations"][0].update(code="x"), "operations[0].code: unknown"),
        (lambda d: d.update(network=[]), "network: a list of 0 -> expected an object"),
        (lambda d: d.update(schema="traincast.model/2"), "schema: 'traincast.model/2'"),
    ],
)
def test_broken_model_files_say_where(tmp_path, change, message):
    path = tmp_path / "small.json"
    write_model(small(), path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(InputError) as error:
        read_model(path)
    assert message in str(error.value)


def test_autocast_norms_and_softmax_are_in_fp32():
    """Twice the bytes and two casts, of layer norms forward five times as much; only where all else is in two
    bytes, and never of norms by channel."""
    b = Builder()
    b.loss(b.layer_norm(b.linear(b.features(64), 64, bias=False)))
    model = Model(name="norm", network=b.network(max_tokens=128))
    own = Job(model=model, global_batch=4, seq_len=128, precision="fp16")
    kind = model.layers[0].kind

    def norm(precision, stack):
        kernels = layer_kernels(
            replace(own, precision=precision), Strategy(micro_batch=4, stack=stack), kind, "forward"
        )
        return next(k.bytes for k in kernels if k.kind == "memory")

    plain, cast = "nvidia-examples", "nvidia-examples-autocast"
    assert norm("fp16", plain) == 4 * 128 * 64 * 4
    assert norm("fp16", cast) == 4 * 128 * 64 * 20
    assert norm("fp32", cast) == norm("fp32", plain)

    def whole(stack):
        images = job(precision="fp16")
        costs = Costs(read_cluster("dgx-a100"), images, Strategy(micro_batch=64, stack=stack))
        return sum(map(costs.compute.forward_s, images.model.layers))

    assert whole(cast) == whole(plain)


def test_tf32_images_are_transposed():
    """Before and after every convolution, each value read and written once more."""
    model = small()
    own = Job(model=model, global_batch=4, seq_len=1, precision="tf32")

    def moved(stack):
        strategy = Strategy(micro_batch=4, stack=stack)
        kernels = layer_kernels(own, strategy, model.layers[1].kind, "forward")
        return sum(k.bytes for k in kernels if k.kind == "memory")

    assert moved("nvidia-examples") - moved("megatron") == 4 * 2 * (1024 + 1024) * 4
