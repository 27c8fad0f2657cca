"""What is trained, as a list of layers: an embedding, transformer blocks, dense or with experts, a head; or
those of any other network.

A `Decoder` holds the architecture as `config.json` files name it, a `Network` (`networks/`) anything else; a
`Model` is its layers with their parameters. What a layer computes is in `sim/kernels`; reading Hugging Face
files in `hf_config.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from .decoder import NO_DECODER, Decoder
from .layer import BLOCK, EMBEDDING, HEAD, MOE_BLOCK, Layer
from .networks.network import Network


@dataclass(frozen=True, kw_only=True)
class Model:
    """A named architecture and its layers: embedding, blocks, head; or those of a network."""

    name: str
    decoder: Decoder = NO_DECODER
    source: str = ""
    """Where the architecture was read."""
    network: Network | None = None
    """The layers of a model that is no decoder."""
    module: str = ""
    """Of a user's own module: the `package.module:function` that makes it; each layer is a part of it."""

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        if self.network is not None:
            named = zip(self.network.kinds, self.network.parts, strict=True)
            return tuple(
                Layer(index=i, kind=kind, parameters=part.parameters) for i, (kind, part) in enumerate(named)
            )
        decoder = self.decoder
        blocks = [MOE_BLOCK if decoder.has_experts(i) else BLOCK for i in range(1, decoder.layers + 1)]
        kinds = [EMBEDDING, *blocks, HEAD]
        sizes = {
            EMBEDDING: decoder.embedding_parameters,
            BLOCK: decoder.block_parameters,
            MOE_BLOCK: decoder.moe_block_parameters,
            HEAD: decoder.head_parameters,
        }
        whole = {kind: decoder.whole_parameters(kind) for kind in sizes}
        return tuple(
            Layer(
                index=i,
                kind=kind,
                parameters=sizes[kind],
                expert_parameters=decoder.expert_parameters if kind == MOE_BLOCK else 0,
                whole_parameters=whole[kind],
            )
            for i, kind in enumerate(kinds)
        )

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def blocks(self) -> int:
        """Layers that pipeline stages share out: a decoder's blocks, all layers of a network."""
        return len(self.layers) if self.network is not None else self.decoder.layers

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values; `from_dict` reads them back."""
        named = {"name": self.name, "source": self.source}
        if self.module:
            named["module"] = self.module
        if self.network is not None:
            return {**named, "network": self.network.to_dict()}
        return {**named, "decoder": asdict(self.decoder)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Model:
        named = {key: data[key] for key in ("name", "source", "module") if key in data}
        if "network" in data:
            return cls(**named, network=Network.from_dict(data["network"]))
        return cls(**named, decoder=Decoder(**data["decoder"]))
