"""The embedding model that a setting names."""

from pathlib import Path

from dragon_core.errors import ModelError
from dragon_runtime.embedding.llama import LlamaEmbedder
from dragon_runtime.embedding.minilm import NAME, MiniLmEmbedder
from dragon_runtime.interfaces import Embedder

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
