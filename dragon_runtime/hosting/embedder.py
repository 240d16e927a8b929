"""What `triton_models/embedder/1/model.py` does with its requests, without anything of Triton in it."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dragon_runtime.embedding.choice import open_embedder
from dragon_runtime.engines.triton.tensors import Tensors
from dragon_runtime.hosting.loop_thread import LoopThread


class EmbedderService:
    """Embeds the texts of several requests at once."""

    def __init__(self, uri: str) -> None:
        """Load the embedding model `uri`.

        Raises:
            ModelError: there is none, or it is damaged.
        """
        self._thread = LoopThread("embedder")
        self._embedder = self._thread.run(open_embedder(uri))
        self._outputs: dict[str, Callable[[Sequence[str]], NDArray[np.generic]]] = {
            "VECTOR": lambda texts: self._thread.run(self._embedder.embed(texts)),
            "NUM_TOKENS": self._lengths,
            "NAME": lambda texts: self._constant(self._embedder.name, len(texts)),
            "REVISION": lambda texts: self._constant(self._embedder.revision, len(texts)),
        }

    def serve(self, texts: Sequence[str], outputs: Sequence[str]) -> Tensors:
        """The named outputs, one row per text; nothing else is computed.

        Raises:
            DragonError: a text cannot be embedded.
        """
        return {name: self._outputs[name](texts) for name in outputs}

    def _lengths(self, texts: Sequence[str]) -> NDArray[np.int32]:
        return np.array([[self._embedder.num_tokens(each)] for each in texts], dtype=np.int32)

    @staticmethod
    def _constant(value: str, num_rows: int) -> NDArray[np.object_]:
        return np.array([[value.encode()]] * num_rows, dtype=object)

    def close(self) -> None:
        """Free the model."""
        self._embedder.close()
        self._thread.close()
