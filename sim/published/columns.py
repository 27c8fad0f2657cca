"""The columns of a table of measurements, each by the one name it has here, and what else it is called.

Whatever a table calls a quantity is an alias in `ALIASES` and nowhere else. Several columns of one table may
be aliases of the same name: the first that is filled in a row counts.
"""

from __future__ import annotations

ALIASES: dict[str, tuple[str, ...]] = {
    "source": ("source_title", "source"),
    "citation": ("source_url_or_repo_path", "citation", "url"),
    "table": ("table",),
    "model": ("model", "model_name"),
    "layers": ("layers", "num_layers", "n_layers"),
    "hidden": ("hidden", "hidden_size", "d_model"),
    "heads": ("heads", "num_heads", "n_heads"),
    "kv_heads": ("kv_heads", "num_kv_heads"),
    "ffn": ("ffn", "ffn_hidden_size", "intermediate_size"),
    "vocab": ("vocab", "vocab_size"),
    "seq_len": ("seq_len", "sequence_length"),
    "accelerator": ("accelerator", "gpu", "device"),
    "gpus": ("num_gpus", "gpus", "accelerators"),
    "gpus_per_node": ("gpus_per_node",),
    "tp": ("tp", "tensor_parallel"),
    "pp": ("pp", "pipeline_parallel"),
    "vp": ("vp", "virtual_pipeline"),
    "cp": ("cp", "context_parallel"),
    "ep": ("ep", "expert_parallel"),
    "dp": ("dp", "data_parallel"),
    "sharding": ("sharding", "fsdp", "zero"),
    "global_batch": ("global_batch", "global_batch_size", "gbs"),
    "micro_batch": ("micro_batch", "micro_batch_size", "mbs"),
    "grad_accum": ("grad_accum", "gradient_accumulation"),
    "recompute": ("recompute", "activation_checkpointing"),
    "sequence_parallel": ("sequence_parallel",),
    "schedule": ("schedule", "pp_schedule"),
    "precision": ("precision", "dtype"),
    "optimizer": ("optimizer",),
    "attention": ("attention_kernel", "attention"),
    "dropout": ("dropout",),
    "compiled": ("compiled", "torch_compile"),
    "tensor_overlap": ("tensor_overlap", "async_tp", "tp_comm_overlap"),
    "expert_overlap": ("expert_overlap", "overlap_moe_expert_parallel_comm"),
    "dispatcher": ("dispatcher", "moe_flex_dispatcher_backend"),
    "stage_layers": ("stage_layers",),
    "configuration": ("configuration_source",),
    "task": ("task",),
    "act_offload": ("act_cpu_offload",),
    "status": ("status",),
    "step_s": ("step_time_s", "iteration_time_s", "step_time_s_derived"),
    "step_ms": ("step_time_ms", "iteration_time_ms"),
    "tokens_per_s": ("throughput_tok_per_s", "tokens_per_s"),
    "tokens_per_s_gpu": ("throughput_tok_per_s_gpu", "tokens_per_s_gpu", "tps_per_gpu"),
    "samples_per_s": ("throughput_seq_per_s", "samples_per_s", "images_per_s"),
    "tflops_per_gpu": ("tflops_per_gpu",),
    "tflops_def": ("tflops_def",),
    "memory_gib": ("memory_gib", "peak_memory_gib"),
    "memory_gb": ("memory_gb",),
    "variable_update": ("variable_update",),
    "sync": ("sync",),
    "notes": ("notes",),
}
"""Canonical name to the headings it goes by."""

USED_HEADINGS = frozenset(heading for headings in ALIASES.values() for heading in headings)
"""Every heading that is read; other columns of a table are ignored."""
