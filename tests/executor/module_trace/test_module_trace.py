"""Modules traced on the meta device equal the networks that were written down layer by layer."""

import json
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from traincast.executor.model.references import read_factory  # noqa: E402
from traincast.executor.module_trace.module_trace import TRACED, trace_module  # noqa: E402
from traincast.sim.errors import InputError  # noqa: E402
from traincast.sim.model.networks.network import Network  # noqa: E402
from traincast.sim.model.networks.presets import network_preset  # noqa: E402


def conv(channels: int, out: int, window: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    made = nn.Conv2d(channels, out, window, stride=stride, padding=padding, bias=False)
    return [made, nn.BatchNorm2d(out)]


class Bottleneck(nn.Module):
    """As torchvision has it."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        relu = nn.ReLU(inplace=True)
        self.inner = nn.Sequential(
            *conv(channels, width, 1),
            relu,
            *conv(width, width, 3, stride, 1),
            relu,
            *conv(width, 4 * width, 1),
        )
        widens = stride > 1 or channels != 4 * width
        self.past = nn.Sequential(*conv(channels, 4 * width, 1, stride)) if widens else nn.Identity()
        self.relu = relu

    def forward(self, x):
        return self.relu(self.inner(x) + self.past(x))


def resnet50() -> nn.Module:
    layers: list[nn.Module] = [*conv(3, 64, 7, 2, 3), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for size, count in enumerate((3, 4, 6, 3)):
        for place in range(count):
            layers.append(Bottleneck(channels, 64 * 2**size, 2 if size and not place else 1))
            channels = 256 * 2**size
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def vgg16() -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for size, count in enumerate((2, 2, 3, 3, 3)):
        for _ in range(count):
            width = min(512, 64 * 2**size)
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    layers += [nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(25088, 4096), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(True), nn.Dropout(),
                         nn.Linear(4096, 1000))  # fmt: skip


def traced(module: nn.Module, *shape: int) -> Network:
    network = trace_module(module, [torch.empty(TRACED, *shape, device="meta")], name="traced").network
    assert network is not None
    return network


def sums(network: Network) -> dict[str, float]:
    operations = [op for part in network.parts for op in part.operations]
    return {
        "parameters": sum(part.parameters for part in network.parts),
        "flops": network.flops(),
        "kept": sum(part.kept for part in network.parts),
        "moved": sum(op.moved for op in operations),
        "moved_back": sum(op.moved_back for op in operations),
    }


@pytest.mark.parametrize(("name", "build"), [("resnet50", resnet50), ("vgg16", vgg16)])
def test_known_networks_are_what_is_written_down(name, build):
    """Parameters and FLOPs to the last one, layer by layer; what is kept and moved within 1 %."""
    with torch.device("meta"):
        found = traced(build(), 3, 224, 224)
    wanted = network_preset(name)
    assert [part.parameters for part in found.parts] == [part.parameters for part in wanted.parts]
    products = [[op.flops for op in part.operations if op.flops] for part in found.parts]
    assert products == [[op.flops for op in part.operations if op.flops] for part in wanted.parts]
    assert sums(found) == pytest.approx(sums(wanted), rel=0.01)
    gradients = [part.operations[0].has_input_gradient for part in found.parts]
    assert gradients == [False] + [True] * (len(found.parts) - 1)


class Attention(nn.Module):
    """One head's attention over 16 tokens, then a head that shares its matrix with the table."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, 32)
        self.qkv = nn.Linear(32, 96, bias=False)

    def forward(self, tokens):
        x = self.table(tokens)
        q, k, v = self.qkv(x).chunk(3, -1)
        mixed = (q @ k.transpose(1, 2)).softmax(-1) @ v
        return nn.functional.linear(mixed, self.table.weight)


def test_products_without_weights_and_shared_parameters():
    """A sample of 16 tokens is one token of the Model; the table counts once, and its second use no layer."""
    with torch.device("meta"):
        module = Attention()
    tokens = torch.empty(TRACED, 16, dtype=torch.int64, device="meta")
    network = trace_module(module, [tokens], name="attention").network
    assert network is not None
    assert sum(part.parameters for part in network.parts) == 100 * 32 + 32 * 96
    assert network.flops() == 2 * 16 * (32 * 96 + 2 * 16 * 32 + 32 * 100)
    assert [part.operations[0].kind for part in network.parts] == ["lookup", "product"]
    assert network.input_bytes == 16 * 8


class Recurrent(nn.Module):
    """An LSTM of two layers over 16 tokens."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(1000, 64)
        self.lstm = nn.LSTM(64, 128, 2, batch_first=True)

    def forward(self, tokens):
        return self.lstm(self.table(tokens))[0]


def test_a_recurrence_is_one_layer():
    """Inputs and states token by token with the same matrices: a table, then two for each of two layers."""
    with torch.device("meta"):
        module = Recurrent()
    tokens = torch.empty(TRACED, 16, dtype=torch.int64, device="meta")
    network = trace_module(module, [tokens], name="lstm").network
    assert network is not None
    assert len(network.parts) == 5
    assert sum(part.parameters for part in network.parts) == sum(p.numel() for p in module.parameters())
    assert network.flops() == 16 * 2 * 4 * 128 * ((64 + 128) + (128 + 128))


def test_nothing_is_computed():
    """A module of a trillion parameters is traced as quickly as any."""
    with torch.device("meta"):
        network = traced(nn.Sequential(nn.Linear(1_000_000, 1_000_000), nn.ReLU()), 1_000_000)
    assert network.parts[0].parameters == 10**12 + 10**6


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(8, 8), "module: RuntimeError"),
        (nn.Sequential(), "no products -> expected a module with weights"),
    ],
    ids=["fails", "empty"],
)
def test_what_cannot_be_traced_says_why(module, message):
    with pytest.raises(InputError, match=message):
        traced(module, 4)


@pytest.mark.parametrize("name", ["json", "json:nothing", "no_such_module:x", "json:__name__"])
def test_factories_that_are_none(name):
    with pytest.raises(InputError, match=r"expected package\.module:factory"):
        read_factory(name)


def test_from_the_command_line(tmp_path):
    """A module in the current directory becomes a file, and the file a plan."""
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))\n"
    )

    def traincast(*args: str) -> str:
        command = [sys.executable, "-m", "traincast", "-q", *args]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    traincast("import", "module", "mine:net", "--input", "3x8x8", "-o", "net.json")
    told = traincast("simulate", "net.json", "--cluster", "dgx-a100", "--dp", "8", "--global-batch", "512",
                     "--micro-batch", "64", "--json")  # fmt: skip
    assert json.loads(told)["samples_per_s"] > 0
    assert "ok" in traincast("check", "net.json")
