"""Models from Hugging Face `config.json` files, read as plain JSON; transformers is never imported.

The decoder families GPT-2, Llama, Mistral, Qwen2 and Qwen3, and with experts Mixtral, Qwen2-MoE, Qwen3-MoE,
DeepSeek-V2 and -V3, are known, each by one row of a table that says what its keys are called and what they
default to in transformers' configuration classes. Anything else is refused with what is missing or
unsupported: a guessed architecture costs a guessed time.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import Fault, InputError
from ..files.document import Document, did_you_mean, log_doubts, printable, raise_faults, shown
from ..files.reader import load_document
from .decoder import Decoder
from .hf_families import ACTIVATIONS, FAMILIES, Family
from .hf_keys import KeyReader, is_size
from .model import Model
from .model_file import is_model_file, read_model_file
from .networks.presets import NETWORKS, network_preset

MODELS_DIRECTORY = Path(__file__).parents[2] / "models"

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".ckpt", ".h5", ".onnx", ".msgpack")


_DTYPES = ("float32", "bfloat16", "float16")
_MOE_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")
_CODE_KEYS = ("auto_map", "trust_remote_code", "custom_pipelines")


def read_model(name_or_path: str | os.PathLike[str]) -> Model:
    """The model of a preset (`llama3-8b`, `Llama3_8B`, `resnet50`), of a `config.json` or of a model file.

    Raises:
        InputError: no such preset or file, or a file that is no supported configuration.
    """
    network = _network_preset(os.fspath(name_or_path))
    if network is not None:
        return network
    preset = preset_path(name_or_path)
    if preset is None and is_model_file(name_or_path):
        return read_model_file(name_or_path)
    return read_hf_config(name_or_path if preset is None else preset)


def preset_path(name_or_path: str | os.PathLike[str]) -> Path | None:
    """The preset's file, or None if ``name_or_path`` names a file.

    Raises:
        InputError: it names neither.
    """
    name = os.fspath(name_or_path)
    if name.endswith(".json") or os.sep in name or Path(name).exists():
        return None
    presets = {_plain(stem): path for stem, path in model_presets().items()}
    if _plain(name) in presets:
        return presets[_plain(name)]
    raise InputError(
        Fault(
            path="model",
            found=shown(name),
            expected="a preset or a config.json",
            hint=did_you_mean(name, [*model_presets(), *NETWORKS]),
        )
    )


def _network_preset(name: str) -> Model | None:
    """A preset that is no decoder; None where ``name`` is none, or a file."""
    known = {_plain(key): key for key in NETWORKS}
    key = known.get(_plain(name))
    if key is None or name.endswith(".json") or Path(name).exists():
        return None
    return Model(name=key, network=network_preset(key), source=NETWORKS[key][1])


def model_presets() -> dict[str, Path]:
    """Preset names and their files.

    >>> import traincast as tc
    >>> "llama3-8b" in tc.model_presets()
    True
    """
    return {path.stem: path for path in sorted(MODELS_DIRECTORY.glob("*.json"))}


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(".", "").replace(" ", "")


def read_hf_config(path: str | os.PathLike[str]) -> Model:
    """The model that a `config.json` (or the directory that holds one) describes.

    Raises:
        InputError: lists everything that is missing, unsupported or contradictory.
    """
    model, errors, warnings = check_hf_config(load_document(_config_file(Path(path))))
    raise_faults(errors)
    log_doubts(warnings)
    assert model is not None  # no errors
    return model


def _config_file(path: Path) -> Path:
    """Refuse weights, and look into a directory."""
    if path.suffix.lower() in WEIGHT_SUFFIXES:
        hint = "give the config.json that lies beside it"
        raise InputError(
            Fault(file=printable(str(path)), path="", found="weights", expected="a config.json", hint=hint)
        )
    return path / "config.json" if path.is_dir() and (path / "config.json").exists() else path


def check_hf_config(document: Document) -> tuple[Model | None, list[Fault], list[Fault]]:
    """(model, errors, warnings) of a configuration; no model where there are errors."""
    if not isinstance(document.data, dict):
        return None, [document.fault((), shown(document.data), "a mapping, as config.json holds")], []
    reading = _Reading(document)
    model = reading.model()
    return (None if reading.errors else model), reading.errors, reading.warnings


class _Reading(KeyReader):
    """The Decoder of one configuration."""

    def model(self) -> Model | None:
        self._ignored_code()
        family = self._family()
        self._unsupported(family)
        if family is None:
            return None
        sizes = self._sizes(family)
        choices = self._choices(family)
        if self.errors or not self._consistent(sizes):
            return None
        decoder = Decoder(**sizes, **choices)
        model = Model(name=self._name(), decoder=decoder, source=Path(self.document.file).name)
        self._declared_parameters(model)
        self._sliding_window(sizes["max_positions"])
        return model

    def _ignored_code(self) -> None:
        for key in _CODE_KEYS:
            if self.data.get(key):
                self._warn(key, "ignored", "traincast runs no code from a model")

    def _family(self) -> Family | None:
        """By `architectures`, which says what the weights are, else by `model_type`."""
        known = {family.architecture: family for family in FAMILIES.values()}
        named = self.data.get("architectures")
        if named:
            name = named[0] if isinstance(named, list) and len(named) == 1 else named
            if isinstance(name, str) and name in known:
                return known[name]
            self._error("architectures", shown(name), " | ".join(known))
            return None
        model_type = self.data.get("model_type")
        if isinstance(model_type, str) and model_type in FAMILIES:
            return FAMILIES[model_type]
        key = "model_type" if "model_type" in self.data else "architectures"
        found = "missing" if model_type is None else shown(model_type)
        self._error(key, found, " | ".join(FAMILIES if key == "model_type" else known))
        return None

    def _unsupported(self, family: Family | None) -> None:
        """Keys that would make it another model than the families are."""
        for key, only in (family.only if family else {}).items():
            if self.data.get(key) not in (only, None):
                self._error(
                    key, shown(self.data[key]), json.dumps(only), "any other value is another architecture"
                )
        self._unsupported_experts(family)
        if self.data.get("num_nextn_predict_layers"):
            self._warn("num_nextn_predict_layers", "ignored", "multi-token prediction is not costed")
        for key in ("is_encoder_decoder", "add_cross_attention"):
            if self.data.get(key):
                self._error(key, shown(self.data[key]), "a decoder-only model")
        if self.data.get("quantization_config"):
            self._warn("quantization_config", "ignored", "training is planned in the job's precision")

    def _unsupported_experts(self, family: Family | None) -> None:
        """Experts of a dense family, and more for a token than there are."""
        if not (family and family.has_experts) and any(self.data.get(key) for key in _MOE_KEYS):
            key = next(key for key in _MOE_KEYS if self.data.get(key))
            with_experts = " | ".join(name for name, one in FAMILIES.items() if one.has_experts)
            self._error(key, shown(self.data[key]), "a dense model", f"experts are read of {with_experts}")
        per_token = self.data.get("num_experts_per_tok")
        experts = next((self.data[key] for key in _MOE_KEYS[:3] if is_size(self.data.get(key))), None)
        if is_size(per_token) and experts is not None and per_token > experts:
            self._error("num_experts_per_tok", str(per_token), f"at most the {experts} experts")

    def _sizes(self, family: Family) -> dict[str, int]:
        """The Decoder's whole numbers."""
        found = {name: self._size(name, keys, family) for name, keys in family.aliases.items()}
        known = {name: size for name, size in found.items() if size}
        heads, hidden = known.get("heads", 0), known.get("hidden", 0)
        known.setdefault("kv_heads", heads)
        known.setdefault("ffn", 4 * hidden)
        if "head_dim" not in known and "nope_dim" not in known and heads:
            known["head_dim"] = family.head_dim_default or hidden // heads
            if not family.head_dim_default and hidden % heads:
                key = self._key(family.aliases["heads"])
                self._error(key, str(heads), f"a divisor of the hidden size {hidden}")
        return known if self.errors else family.derive(known)

    def _choices(self, family: Family) -> dict[str, Any]:
        """The Decoder's fields that are not sizes."""
        choices = dict(family.fixed)
        name = self.data.get(family.activation_key)
        activation = family.activation if name is None else ACTIVATIONS.get(str(name))
        if activation != family.activation:
            fitting = [key for key, value in ACTIVATIONS.items() if value == family.activation]
            self._error(family.activation_key, shown(name), " | ".join(fitting))
        choices["activation"] = family.activation
        if family.bias_key:
            choices["attention_bias"] = choices["output_bias"] = self._flag(family.bias_key, False)
        if family.mlp_bias_key:
            choices["mlp_bias"] = self._flag(family.mlp_bias_key, False)
        choices["tied_embeddings"] = self._flag("tie_word_embeddings", family.tied_default)
        for key in ("torch_dtype", "dtype"):
            value = self.data.get(key)
            if value is not None and value not in _DTYPES:
                self._error(key, shown(value), " | ".join(_DTYPES))
        return choices

    def _consistent(self, sizes: dict[str, int]) -> bool:
        if sizes["heads"] % sizes["kv_heads"]:
            self._error(
                "num_key_value_heads", str(sizes["kv_heads"]), f"a divisor of the {sizes['heads']} heads"
            )
        if sizes.get("dense_layers", 0) > sizes["layers"]:
            found = str(sizes["dense_layers"])
            self._error("first_k_dense_replace", found, f"at most the {sizes['layers']} layers")
        return not self.errors

    def _declared_parameters(self, model: Model) -> None:
        declared = self.data.get("num_parameters")
        if is_size(declared) and abs(model.parameters - declared) > 0.01 * declared:
            self._error(
                "num_parameters", f"{declared:,}", f"{model.parameters:,} by the other keys, within 1 %"
            )

    def _sliding_window(self, max_positions: int) -> None:
        window = self.data.get("sliding_window")
        used = self.data.get("use_sliding_window", True)
        if used and is_size(window) and window < max_positions:
            hint = "attention is costed over the whole sequence"
            self._warn("sliding_window", f"{window} ignored", hint)
