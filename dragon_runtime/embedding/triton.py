"""The embedding model on Triton; see docs/triton.md."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dragon_runtime.engines.triton.client import TritonClient
from dragon_runtime.engines.triton.tensors import Tensors, text_in, texts

MODEL = "embedder"
BATCH_TEXTS = 64
"""The model's `max_batch_size`."""


class TritonEmbedder:
    """Text to unit vectors on a Triton server; see `Embedder`. Made by `connect`."""

    def __init__(self, client: TritonClient, *, name: str, revision: str, dimension: int) -> None:
        self._client, self._name, self._revision, self._dimension = client, name, revision, dimension

    @classmethod
    async def connect(cls, client: TritonClient) -> "TritonEmbedder":
        """Ask the model what it is.

        Raises:
            DragonError: the server or the model is not there.
        """
        found = await client.infer(MODEL, _rows(["dimension"]), outputs=("NAME", "REVISION", "VECTOR"))
        return cls(
            client,
            name=text_in(found, "NAME"),
            revision=text_in(found, "REVISION"),
            dimension=found["VECTOR"].shape[-1],
        )

    @property
    def name(self) -> str:
        return self._name

    @property
    def revision(self) -> str:
        return self._revision

    @property
    def dimension(self) -> int:
        return self._dimension

    async def embed(self, texts_to_embed: Sequence[str]) -> NDArray[np.float32]:
        """(n, dimension) unit rows; see `Embedder`."""
        rows = [np.zeros((0, self._dimension), dtype=np.float32)]
        for start in range(0, len(texts_to_embed), BATCH_TEXTS):
            batch = texts_to_embed[start : start + BATCH_TEXTS]
            found = await self._client.infer(MODEL, _rows(batch), outputs=("VECTOR",))
            rows.append(np.asarray(found["VECTOR"], dtype=np.float32).reshape(len(batch), self._dimension))
        return np.concatenate(rows)

    def num_tokens(self, text: str) -> int:
        """Tokens of a text. Blocks for a round trip: never call it on the event loop."""
        found = self._client.wait_for(self._client.infer(MODEL, _rows([text]), outputs=("NUM_TOKENS",)))
        return int(found["NUM_TOKENS"].reshape(-1)[0])

    def close(self) -> None:
        """Nothing is held: the connection belongs to whoever made it."""


def _rows(batch: Sequence[str]) -> Tensors:
    return {"TEXT": texts(batch).reshape(-1, 1)}
