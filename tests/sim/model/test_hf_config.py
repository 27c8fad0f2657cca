"""Published parameter counts, and every wrong configuration with its whole message."""

import json
from pathlib import Path

import pytest

from traincast.sim.errors import InputError
from traincast.sim.files.reader import load_document
from traincast.sim.model.hf_config import check_hf_config, model_presets, read_hf_config, read_model
from traincast.sim.model.hf_families import FAMILIES

ARCHITECTURES = " | ".join(family.architecture for family in FAMILIES.values())

PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "llama2-7b": 6_738_415_616,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.1-405b": 405_853_388_800,
    "mistral-7b": 7_241_732_096,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-8b": 8_190_735_360,
}
"""`num_parameters()` in transformers, and the totals of the published safetensors files."""

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "vocab_size": 256,
}


def write(tmp_path: Path, **changes: object) -> Path:
    """LLAMA with ``changes``, where None takes a key out; one key a line, from line 2 on."""
    data = {key: value for key, value in {**LLAMA, **changes}.items() if value is not None}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data, indent=0).replace("[\n", "[").replace("\n]", "]"))
    return path


def message(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_hf_config(path)
    assert caught.value.exit_code == 3
    return str(caught.value).replace(f"{path}:", "config.json:")


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_parameter_counts_are_the_published_ones(name, parameters):
    """Every preset has exactly the parameters that its authors publish."""
    model = read_model(name)
    assert (model.name, model.parameters) == (name, parameters)


def test_demo_models():
    """The models of the demo: bytes as tokens, small enough for a laptop."""
    llama, gpt2 = read_model("tiny-llama-bytes"), read_model("tiny-gpt2-bytes")
    # Embedding and head 2 × 256 × 256; a block 2 × 256² + 2 × 256 × 128 + 3 × 256 × 704 + 2 × 256.
    assert llama.parameters == 2 * 65_536 + 6 * (131_072 + 65_536 + 540_672 + 512) + 256
    assert (llama.decoder.kv_heads, llama.decoder.max_positions, llama.decoder.vocab) == (4, 512, 256)
    assert gpt2.decoder.tied_embeddings
    assert gpt2.decoder.positions == "learned"


def test_demo_models_with_experts():
    """Experts as Mixtral has them; and as DeepSeek-V3, with latent attention and a dense first block."""
    moe, mla = read_model("tiny-moe-bytes"), read_model("tiny-mla-bytes")
    attention, ends = 2 * 256 * 256 + 2 * 256 * 128, 2 * 65_536 + 256
    assert moe.parameters == ends + 6 * (attention + 8 * 256 + 8 * 3 * 256 * 352 + 512)
    latents = 256 * (128 + 64 + 16) + 128 + 64
    attention = latents + 128 * 8 * 48 + 64 * 8 * (32 + 32) + 8 * 32 * 256
    experts = 8 * 256 + 8 + 9 * 3 * 256 * 176
    assert mla.parameters == ends + 6 * (attention + 512) + 3 * 256 * 704 + 5 * experts


def test_presets_are_all_listed():
    """No preset without a known count (those with experts in test_model.py), apart from the demo's own."""
    with_experts = {name for name in model_presets() if read_model(name).decoder.experts}
    assert {*model_presets()} - with_experts == {*PUBLISHED, "tiny-llama-bytes", "tiny-gpt2-bytes"}


@pytest.mark.parametrize("name", ["llama3-8b", "llama3_8b", "Llama3-8B", "LLAMA3 8B"])
def test_preset_names_forgive_dashes_and_case(name):
    assert read_model(name).name == "llama3-8b"


def test_unknown_preset_suggests_a_near_one():
    with pytest.raises(InputError) as caught:
        read_model("llama3-9b")
    assert str(caught.value) == (
        "model: 'llama3-9b' -> expected a preset or a config.json; did you mean llama3-8b?"
    )


def test_a_file_is_read_without_its_optional_keys(tmp_path):
    """Absent keys take the defaults of transformers' LlamaConfig."""
    model = read_hf_config(write(tmp_path, num_key_value_heads=None, hidden_act=None))
    decoder = model.decoder
    assert (decoder.kv_heads, decoder.head_dim, decoder.activation) == (4, 16, "swiglu")
    assert not decoder.tied_embeddings
    assert not decoder.attention_bias


def test_model_type_is_enough(tmp_path):
    """Old configurations have no `architectures`."""
    assert read_hf_config(write(tmp_path, architectures=None, model_type="llama")).parameters > 0


def test_llama_bias_covers_the_output_projection(tmp_path):
    """transformers' LlamaAttention gives o_proj the same bias; Qwen2's has none there."""
    plain = read_hf_config(write(tmp_path))
    biased = read_hf_config(write(tmp_path, attention_bias=True))
    qwen = read_hf_config(write(tmp_path, architectures=["Qwen2ForCausalLM"]))
    assert biased.parameters - plain.parameters == 2 * (64 + 2 * 32 + 64)
    assert qwen.parameters - plain.parameters == 2 * (64 + 2 * 32)


def test_directory_stands_for_its_config(tmp_path):
    folder = tmp_path / "my-llama"
    folder.mkdir()
    write(folder)
    assert read_model(folder).name == "my-llama"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"num_attention_heads": 5, "num_key_value_heads": 5},
            "config.json:7: num_attention_heads: 5 -> expected a divisor of the hidden size 64",
        ),
        (
            {"num_key_value_heads": 3},
            "config.json:9: num_key_value_heads: 3 -> expected a divisor of the 4 heads",
        ),
        (
            {"num_hidden_layers": 0},
            "config.json:8: num_hidden_layers: 0 -> expected a whole number from 1 to 10000",
        ),
        (
            {"num_hidden_layers": 2.5},
            "config.json:8: num_hidden_layers: 2.5 -> expected a whole number from 1 to 10000",
        ),
        (
            {"num_hidden_layers": True},
            "config.json:8: num_hidden_layers: true -> expected a whole number from 1 to 10000",
        ),
        (
            {"num_hidden_layers": 10**9},
            "config.json:8: num_hidden_layers: 1000000000 -> expected a whole number from 1 to 10000",
        ),
        ({"vocab_size": None}, "config.json: vocab_size: missing -> expected a whole number"),
        (
            {"vocab_size": None, "vocabsize": 9},
            "config.json: vocab_size: missing -> expected a whole number; the file has vocabsize",
        ),
        (
            {"architectures": ["MambaForCausalLM"]},
            f"config.json:2: architectures: 'MambaForCausalLM' -> expected {ARCHITECTURES}",
        ),
        (
            {"architectures": None, "model_type": "bert"},
            f"config.json:10: model_type: 'bert' -> expected {' | '.join(FAMILIES)}",
        ),
        (
            {"architectures": None},
            f"config.json: architectures: missing -> expected {ARCHITECTURES}",
        ),
        ({"hidden_act": "relu2"}, "config.json:3: hidden_act: 'relu2' -> expected silu | swish"),
        (
            {"torch_dtype": "int4"},
            "config.json:11: torch_dtype: 'int4' -> expected float32 | bfloat16 | float16",
        ),
        (
            {"tie_word_embeddings": "yes"},
            "config.json:11: tie_word_embeddings: 'yes' -> expected true or false",
        ),
        (
            {"num_local_experts": 4, "num_experts_per_tok": 8},
            "config.json:11: num_local_experts: 4 -> expected a dense model;"
            " experts are read of mixtral | qwen2_moe | qwen3_moe | deepseek_v2 | deepseek_v3\n"
            "config.json:12: num_experts_per_tok: 8 -> expected at most the 4 experts\n"
            "2 errors",
        ),
        (
            {"is_encoder_decoder": True},
            "config.json:11: is_encoder_decoder: true -> expected a decoder-only model",
        ),
        (
            {"num_parameters": 10_000},
            "config.json:11: num_parameters: 10,000 -> expected 94,528 by the other keys, within 1 %",
        ),
        (
            {"hidden_size": None, "num_hidden_layers": -1, "vocab_size": "many"},
            "config.json: hidden_size: missing -> expected a whole number (or n_embd, d_model)\n"
            "config.json:7: num_hidden_layers: -1 -> expected a whole number from 1 to 10000\n"
            "config.json:9: vocab_size: 'many' -> expected a whole number from 1 to 100000000\n"
            "3 errors",
        ),
    ],
)
def test_bad_configurations(tmp_path, changes, expected):
    """The whole message, with the line, what was found and what belongs there."""
    assert message(write(tmp_path, **changes)) == expected


def test_weights_are_not_a_configuration(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\0")
    with pytest.raises(InputError) as caught:
        read_model(path)
    assert str(caught.value) == (
        f"{path}: weights -> expected a config.json; give the config.json that lies beside it"
    )


def test_list_is_not_a_configuration(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("[1]")
    assert message(path) == "config.json: a list of 1 -> expected a mapping, as config.json holds"


def test_code_of_the_model_is_ignored_and_said_so(tmp_path):
    """`auto_map` names Python files to run: never run, and warned of."""
    path = write(tmp_path, auto_map={"AutoConfig": "x.Y"}, sliding_window=64)
    model, errors, warnings = check_hf_config(load_document(path))
    assert model is not None
    assert errors == []
    assert [str(w).replace(str(path), "config.json") for w in warnings] == [
        "config.json:11: auto_map: ignored; traincast runs no code from a model",
        "config.json:14: sliding_window: 64 ignored; attention is costed over the whole sequence",
    ]


def test_reading_never_imports_transformers_or_torch():
    """A configuration is data; the libraries that would run code are not even loaded."""
    import subprocess
    import sys

    code = (
        "import sys; from traincast.sim.model.hf_config import read_model; read_model('gpt2');"
        "print([m for m in ('torch', 'transformers', 'pydantic', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def experts(tmp_path, **changes):
    """A small DeepSeek-V3."""
    keys = {
        "architectures": ["DeepseekV3ForCausalLM"],
        "first_k_dense_replace": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 24,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 12,
        "n_routed_experts": 8,
        "n_shared_experts": 2,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "moe_layer_freq": 1,
    }
    return write(tmp_path, **{**keys, **changes})


def test_deepseek_is_read_whole(tmp_path):
    """Heads have a part with and a part without positions; shared experts are as wide as the others."""
    decoder = read_hf_config(experts(tmp_path)).decoder
    assert (decoder.head_dim, decoder.rope_dim, decoder.v_head_dim) == (24, 8, 12)
    assert (decoder.q_rank, decoder.kv_rank, decoder.kv_heads) == (24, 16, decoder.heads)
    assert (decoder.experts, decoder.experts_per_token, decoder.shared_ffn) == (8, 2, 64)
    assert decoder.dense_layers == 1


def test_experts_that_are_missing_or_not_everywhere_are_named(tmp_path):
    """A guessed architecture costs a guessed time."""
    assert "moe_intermediate_size: missing" in message(experts(tmp_path, moe_intermediate_size=None))
    sparse = message(experts(tmp_path, moe_layer_freq=2))
    assert "moe_layer_freq: 2 -> expected 1; any other value is another architecture" in sparse
    biased = message(experts(tmp_path, attention_bias=True))
    assert "attention_bias: true -> expected false; any other value is another architecture" in biased
    dense = message(experts(tmp_path, first_k_dense_replace=3))
    assert "first_k_dense_replace: 3 -> expected at most the 2 layers" in dense


def test_deepseek_may_have_no_dense_blocks_and_no_shared_experts(tmp_path):
    decoder = read_hf_config(experts(tmp_path, first_k_dense_replace=0, n_shared_experts=0)).decoder
    assert (decoder.dense_layers, decoder.shared_ffn) == (0, 0)
