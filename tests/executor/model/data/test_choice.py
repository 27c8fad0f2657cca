"""What a job is trained on: what it names, or what suits its model; what does not suit is refused."""

from __future__ import annotations

import pytest

from traincast.sim.errors import InputError
from traincast.sim.plan.job import Job

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from traincast.executor.model.networks.losses import UNMASKED  # noqa: E402
from traincast.executor.model.workload import Workload  # noqa: E402


def samples(name: str, data: str = "", seq_len: int | None = None):
    job = Job(name, global_batch=4, seq_len=seq_len, precision="fp32", data=data)
    assert not job.faults()
    return Workload(job=job, seed=2).samples()


@pytest.mark.parametrize(
    ("name", "data", "seq_len", "kind", "shapes"),
    [
        ("tiny-gpt2-bytes", "", 8, "Text", [(4, 8), (4, 8)]),
        ("tiny-gpt2-bytes", "synthetic", 8, "SyntheticTokens", [(4, 8), (4, 8)]),
        ("resnet-digits", "", None, "Digits", [(4, 1, 8, 8), (4,)]),
        ("mlp-digits", "", None, "Digits", [(4, 64), (4,)]),
        ("mlp", "", None, "Digits", [(4, 784), (4,)]),
        ("resnet50", "", None, "Synthetic", [(4, 3, 224, 224), (4,)]),
        ("resnet50", "digits", None, "Digits", [(4, 3, 224, 224), (4,)]),
        ("dlrm-tiny", "", None, "Synthetic", [(4, 17), (4, 1)]),
        ("bert-tiny", "", 16, "Masked", [(4, 16, 3), (4, 17)]),
        ("bert-tiny", "synthetic", 16, "Masked", [(4, 16, 3), (4, 17)]),
        ("gnmt-tiny", "", 9, "Paired", [(4, 9, 2), (4, 9)]),
    ],
)
def test_samples_suit_the_model(name, data, seq_len, kind, shapes):
    found = samples(name, data, seq_len)
    assert type(found).__name__ == kind
    first, again = found.batch(3), samples(name, data, seq_len).batch(3)
    assert [tuple(part.shape) for part in first] == shapes
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0], found.batch(4)[0])


@pytest.mark.parametrize(
    ("name", "data", "seq_len", "said"),
    [
        ("tiny-gpt2-bytes", "digits", 8, "expected text | synthetic for tiny-gpt2-bytes"),
        ("resnet-digits", "text", None, "expected digits | synthetic for resnet-digits"),
        ("dlrm-tiny", "digits", None, "expected synthetic for dlrm-tiny"),
        ("bert-tiny", "digits", 16, "expected text | synthetic for bert-tiny"),
    ],
)
def test_what_does_not_suit_is_refused_with_what_does(name, data, seq_len, said):
    with pytest.raises(InputError, match=r"job\.data") as caught:
        samples(name, data, seq_len)
    assert said in str(caught.value)


def test_masked_tokens_are_as_many_in_every_sample_and_told():
    """20 of 128 tokens, so of 16 two or three; the last column tells whether the halves belong together."""
    inputs, targets = samples("bert-tiny", "", 16).batch(0)
    told = targets[:, :-1] != UNMASKED
    assert (told.sum(1) == round(16 * 20 / 128)).all()
    assert torch.equal(inputs[..., 0] == 511, told)
    assert torch.equal(inputs[0, :, 1], torch.arange(16))
    assert set(targets[:, -1].tolist()) <= {0, 1}
