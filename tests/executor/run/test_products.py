"""Products of parallelisms, of every family of models, agree with a single process on the same batch."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")

from agreement import assert_runs_and_agrees

from traincast.sim.model.model import Model
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.strategy import Strategy

pytestmark = pytest.mark.slow
EXPERTS = {"experts": 4, "experts_per_token": 2, "expert_ffn": 16, "shared_ffn": 16}
LATENTS = {"kv_heads": 4, "q_rank": 12, "kv_rank": 20, "rope_dim": 4, "v_head_dim": 12}
MODELS = {
    "llama": {},
    "gpt2": {
        "kv_heads": 4,
        "activation": "gelu",
        "norm": "layernorm",
        "positions": "learned",
        "attention_bias": True,
        "output_bias": True,
        "mlp_bias": True,
        "tied_embeddings": True,
    },
    "qwen": {"qk_norm": True, "attention_bias": True, "tied_embeddings": True},
    "experts": {**EXPERTS, "dense_layers": 1},
    "latents": LATENTS,
    "latents, experts": {**LATENTS, **EXPERTS, "router_bias": True, "shared_gate": True},
}
TWO = {
    "dp × tp": Strategy(dp=2, tp=2, sequence_parallel=True, bucket_bytes=9000),
    "dp × pp": Strategy(dp=2, pp=2, vp=2, schedule="zbv", bucket_bytes=9000),
    "dp × cp": Strategy(dp=2, cp=2, micro_batch=2, cp_exchange="all_gather"),
    "tp × pp": Strategy(tp=2, pp=2, vp=2, schedule="dualpipev", sequence_parallel=True),
    "tp × cp": Strategy(tp=2, cp=2, micro_batch=2, cp_exchange="all_to_all"),
    "cp × pp": Strategy(cp=2, pp=2, vp=2, schedule="interleaved", micro_batch=2),
    "zero1 × pp": Strategy(dp=2, pp=2, vp=2, schedule="zbv", sharding="zero1"),
    "zero2 × pp": Strategy(dp=2, pp=2, vp=2, schedule="interleaved", sharding="zero2"),
    "fsdp × pp": Strategy(dp=2, pp=2, sharding="fsdp", bucket_bytes=9000),
    "fsdp × zero bubble": Strategy(
        dp=2, pp=2, schedule="zb-h1", sharding="fsdp", reshard_after_forward=False
    ),
    "fsdp × tp": Strategy(dp=2, tp=2, sharding="fsdp", sequence_parallel=True, prefetch=0),
    "fsdp × cp": Strategy(dp=2, cp=2, sharding="fsdp", micro_batch=2, prefetch=2),
    "hsdp × cp": Strategy(dp=2, cp=2, sharding="hsdp", shard_degree=2),
    "hsdp": Strategy(dp=4, sharding="hsdp", shard_degree=2),
}
RECOMPUTED = {
    "full × tp × pp": Strategy(tp=2, pp=2, recompute="full", recompute_blocks=1),
    "full × fsdp × zero bubble": Strategy(dp=2, pp=2, schedule="zb-h1", sharding="fsdp", recompute="full"),
    "selective × cp × zero bubble": Strategy(cp=2, pp=2, schedule="zb-h1", recompute="selective"),
    "selective_op × tp × pp": Strategy(tp=2, pp=2, vp=2, schedule="zbv", recompute="selective_op"),
    "selective_op × fsdp": Strategy(dp=2, sharding="fsdp", micro_batch=2, recompute="selective_op"),
}
TIED = {
    "tp × pp": Strategy(tp=2, pp=2, schedule="zb-h1"),
    "tp × cp": Strategy(tp=2, cp=2, sequence_parallel=True),
    "cp × pp": Strategy(cp=2, pp=2),
    "fsdp × pp": Strategy(dp=2, pp=2, sharding="fsdp"),
    "fsdp × zero bubble": Strategy(dp=2, pp=2, schedule="zb-h1", sharding="fsdp"),
    "zero1 × tp": Strategy(dp=2, tp=2, sharding="zero1"),
    "one rank at both ends": Strategy(tp=2, pp=2, vp=2, schedule="zbv"),
}
OF_EXPERTS = {
    "ep × pp": Strategy(dp=2, ep=2, pp=2, schedule="zb-h1"),
    "ep × tp": Strategy(dp=2, ep=2, tp=2, sequence_parallel=True),
    "ep × cp": Strategy(dp=2, cp=2, ep=2),
    "ep of dp × cp": Strategy(dp=2, cp=2, ep=4),
    "ep × fsdp": Strategy(dp=4, ep=2, sharding="fsdp"),
    "ep × hsdp": Strategy(dp=4, ep=2, sharding="hsdp", shard_degree=2),
    "tp × pp": Strategy(tp=2, pp=2, vp=2, schedule="zbv"),
    "recomputed ep × pp": Strategy(dp=2, ep=2, pp=2, recompute="full"),
}
THREE = {
    "dp × tp × pp": ("gpt2", Strategy(dp=2, tp=2, pp=2, sequence_parallel=True)),
    "dp × cp × pp": ("llama", Strategy(dp=2, cp=2, pp=2, schedule="zb-h1")),
    "tp × cp × pp": ("qwen", Strategy(tp=2, cp=2, pp=2, vp=2, schedule="zbv", sequence_parallel=True)),
    "dp × tp × cp": ("llama", Strategy(dp=2, tp=2, cp=2, cp_exchange="all_to_all")),
    "fsdp × tp × pp": ("gpt2", Strategy(dp=2, tp=2, pp=2, sharding="fsdp")),
    "fsdp × cp × pp": ("latents", Strategy(dp=2, cp=2, pp=2, sharding="fsdp", schedule="zb-h1")),
    "zero1 × tp × pp": ("qwen", Strategy(dp=2, tp=2, pp=2, sharding="zero1", sequence_parallel=True)),
    "hsdp × pp": ("llama", Strategy(dp=4, pp=2, sharding="hsdp", shard_degree=2)),
    "ep × tp × pp": ("experts", Strategy(dp=2, ep=2, tp=2, pp=2, sequence_parallel=True)),
    "ep × cp × pp": ("latents, experts", Strategy(dp=2, cp=2, ep=2, pp=2)),
    "ep × fsdp × pp": ("experts", Strategy(dp=4, ep=2, pp=2, sharding="fsdp")),
}
CASES = {
    **{f"{name} of llama": ("llama", strategy) for name, strategy in (TWO | RECOMPUTED).items()},
    **{f"{name} of gpt2": ("gpt2", strategy) for name, strategy in TIED.items()},
    **{f"{name} of qwen": ("qwen", TIED[name]) for name in ("tp × cp", "fsdp × pp")},
    **{f"{name} of latents": ("latents", TWO[name]) for name in ("tp × pp", "tp × cp", "fsdp × tp")},
    **{f"{name} of experts": ("experts", strategy) for name, strategy in OF_EXPERTS.items()},
    **{
        f"{name} of latents, experts": ("latents, experts", OF_EXPERTS[name])
        for name in ("ep × tp", "ep × pp", "ep × fsdp")
    },
    **{f"{name} of {model}": (model, strategy) for name, (model, strategy) in THREE.items()},
}


@pytest.mark.parametrize("case", CASES)
def test_products_agree_with_one_process(tiny_job, tmp_path, case):
    """Losses of each step, the gradients of the last and the parameters behind it."""
    model, strategy = CASES[case]
    decoder = replace(tiny_job.model.decoder, **MODELS[model])
    job = replace(tiny_job, model=Model(name=model, decoder=decoder), optimizer="sgd", learning_rate=0.1)
    assert_runs_and_agrees(make_plan(job, strategy), tmp_path)


def test_learned_routing_agrees_with_one_process(tiny_job, tmp_path):
    """Ranks tell each other how many tokens come, since only the routers know."""
    decoder = replace(tiny_job.model.decoder, **MODELS["experts"])
    model = Model(name="experts", decoder=decoder)
    job = replace(tiny_job, model=model, optimizer="sgd", learning_rate=0.1, routing="learned")
    strategy = Strategy(dp=2, ep=2, tp=2, sequence_parallel=True)
    assert_runs_and_agrees(make_plan(job, strategy), tmp_path)
