"""The embedding model that a setting names, or what a Triton server has."""

from pathlib import Path
from typing import TYPE_CHECKING

from dragon_core.errors import ModelError
from dragon_runtime.embedding.llama import LlamaEmbedder
from dragon_runtime.embedding.minilm import NAME, MiniLmEmbedder
from dragon_runtime.interfaces import Embedder

if TYPE_CHECKING:
    from dragon_runtime.embedding.triton import TritonEmbedder
    from dragon_runtime.engines.triton.client import TritonClient

BUNDLED = f"bundled://{NAME}"


async def open_embedder(uri: str) -> Embedder:
    """`bundled://all-minilm-l6-v2`, or the path of a GGUF file.

    Raises:
        ModelError: there is no such model, or it is damaged.
    """
    if uri == BUNDLED:
        return await MiniLmEmbedder.load()
    if "://" in uri:
        raise ModelError(f"embedding.uri is {uri}; use {BUNDLED} or the path of a GGUF file")
    return await LlamaEmbedder.load(Path(uri))


async def connect_embedder(client: "TritonClient") -> "TritonEmbedder":
    """The embedding model of a Triton server.

    Raises:
        DragonError: the server or the model is not there.
    """
    from dragon_runtime.embedding.triton import TritonEmbedder

    return await TritonEmbedder.connect(client)
