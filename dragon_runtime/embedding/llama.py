"""Any embedding model in a GGUF file, through llama.cpp."""

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dragon_core.errors import EngineError, ModelError, OurError
from dragon_runtime.engines.llama.model import library, require_gguf


class LlamaEmbedder:
    """Text to unit vectors, pooled as the model says; see `Embedder`. One thread computes."""

    def __init__(self, model: Any, path: Path, *, revision: str) -> None:
        self._model, self._path, self._revision = model, path, revision
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="embedder")

    @classmethod
    async def load(cls, path: Path) -> "LlamaEmbedder":
        """Load the file at `path`.

        Raises:
            ModelError: it is missing, damaged, or no embedding model.
        """
        return await asyncio.to_thread(cls._load, path)

    @classmethod
    def _load(cls, path: Path) -> "LlamaEmbedder":
        path = path.expanduser()
        require_gguf(path)
        llama_cpp = library()
        with path.open("rb") as file:
            revision = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            model = llama_cpp.Llama(str(path), embedding=True, n_ctx=0, n_batch=512, verbose=False)
        except (ValueError, RuntimeError, OSError) as error:
            raise ModelError(f"{path} cannot be loaded as an embedding model: {error}") from error
        if model.pooling_type() == llama_cpp.LLAMA_POOLING_TYPE_NONE:
            model.close()
            raise ModelError(f"{path} gives one vector per token, not per text: it is no embedding model")
        return cls(model, path, revision=revision)

    @property
    def name(self) -> str:
        return self._path.stem

    @property
    def revision(self) -> str:
        return self._revision

    @property
    def dimension(self) -> int:
        return int(self._model.n_embd())

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dimension) unit rows in the order of `texts`; see `Embedder`."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._embed_all, tuple(texts))

    def num_tokens(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._model.tokenize(text.encode()))

    def close(self) -> None:
        """Stop the thread and free the model."""
        self._executor.shutdown(cancel_futures=True)
        self._model.close()

    def _embed_all(self, texts: tuple[str, ...]) -> NDArray[np.float32]:
        """One by one: a vector must not depend on the texts beside it."""
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        # The binding writes outside of its buffer for a text without tokens.
        if any(self.num_tokens(text) == 0 for text in texts):
            raise OurError("a text without tokens cannot be embedded")
        try:
            vectors = np.array(
                [self._model.embed(text, normalize=False, truncate=True) for text in texts], dtype=np.float32
            )
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"{self._path} could not embed a text: {error}") from error
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or (lengths == 0).any():
            raise EngineError(f"{self._path} gave a vector without length")
        return np.asarray(vectors / lengths, dtype=np.float32)
