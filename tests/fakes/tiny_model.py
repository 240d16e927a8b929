"""Language models of a few hundred kilobytes with random weights: real files for a real engine, loaded in milliseconds.

They say nothing sensible. What they say is a function of every token before, as of any model.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from dragon_runtime.models import bundled_model

NORMAL, CONTROL = 1, 3
"""Token types as GGUF numbers them."""
TINY_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message.role }}\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Tokeniser:
    """The part of a model file that makes tokens of text."""

    tokens: tuple[str, ...]
    token_types: tuple[int, ...]
    merges: tuple[str, ...]
    pre: str
    ids: Mapping[str, int] = field(default_factory=dict)
    template: str = TINY_TEMPLATE


@functools.cache
def byte_tokeniser() -> Tokeniser:
    """A token per byte, two control tokens (`<|start|>` is 0, `<|end|>` is 1), and one merge because there must be."""
    tokens = ("<|start|>", "<|end|>", *_printable_bytes(), "th")
    return Tokeniser(
        tokens=tokens,
        token_types=(CONTROL, CONTROL, *(NORMAL for _ in tokens[2:])),
        merges=("t h",),
        pre="default",
        ids={"bos": 0, "eos": 1},
    )


@functools.cache
def bundled_tokeniser() -> Tokeniser:
    """That of the bundled model, template included."""
    fields = gguf.GGUFReader(str(bundled_model())).fields

    def value(name: str) -> Any:
        return fields[name].contents()

    return Tokeniser(
        tokens=tuple(value("tokenizer.ggml.tokens")),
        token_types=tuple(value("tokenizer.ggml.token_type")),
        merges=tuple(value("tokenizer.ggml.merges")),
        pre=value("tokenizer.ggml.pre"),
        ids={name: value(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "unknown", "padding")},
        template=value("tokenizer.chat_template"),
    )


def write_tiny_model(
    path: Path,
    *,
    tokeniser: Tokeniser | None = None,
    num_layers: int = 2,
    width: int = 64,
    seed: int = 0,
    quantisation: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q8_0,
    pooling: gguf.PoolingType | None = None,
) -> Path:
    """Write a model of the llama family; with `pooling` it gives one vector per text, as embedding models do."""
    tokeniser = tokeniser or byte_tokeniser()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(width)
    writer.add_block_count(num_layers)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(width // 32)
    writer.add_head_count_kv(width // 32)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokeniser.tokens))
    if pooling is not None:
        writer.add_pooling_type(pooling)
    _add_tokeniser(writer, tokeniser)
    random = np.random.default_rng(seed)

    def add(name: str, rows: int, *, scale: float) -> None:
        weights = random.normal(scale=scale, size=(rows, width if "ffn_down" not in name else 2 * width))
        packed = gguf.quants.quantize(weights.astype(np.float32), quantisation)
        writer.add_tensor(name, packed, raw_dtype=quantisation)

    # A larger embedding would make every output a certainty.
    add("token_embd.weight", len(tokeniser.tokens), scale=0.3)
    _add_layers(writer, add, num_layers, width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_layers(writer: gguf.GGUFWriter, add: Callable[..., None], num_layers: int, width: int) -> None:
    for layer in range(num_layers):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_down"):
            add(f"blk.{layer}.{part}.weight", width, scale=0.3)
        for part in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{part}.weight", 2 * width, scale=0.3)
        for part in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{part}.weight", np.ones(width, dtype=np.float32))
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))


def _add_tokeniser(writer: gguf.GGUFWriter, tokeniser: Tokeniser) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokeniser.pre)
    writer.add_token_list(list(tokeniser.tokens))
    writer.add_token_types(list(tokeniser.token_types))
    writer.add_token_merges(list(tokeniser.merges))
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(tokeniser.template)
    for name, token in tokeniser.ids.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)


def _printable_bytes() -> list[str]:
    """How byte-level tokenisers write the 256 bytes: themselves where they print, else characters from 256 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
