"""The language model that settings name: a file in this process, or what a Triton server has.

A client of Triton is installed with a cloud peer only, so it is imported when it is asked for.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.settings.groups import ModelSettings, TritonSettings

if TYPE_CHECKING:
    from dragon_runtime.engines.triton.client import TritonClient
    from dragon_runtime.engines.triton.engine import TritonEngine


async def open_engine(settings: ModelSettings, path: Path) -> LlamaEngine:
    """A model in this process. `path` is the file that these settings name, as `resolve_model` found it.

    Raises:
        ModelError: it is no GGUF file, damaged, or there is no memory for it.
    """
    return await LlamaEngine.load(
        path,
        context_length=settings.context_length,
        num_sequences=settings.num_sequences,
        num_threads=settings.num_threads,
    )


def open_client(settings: TritonSettings) -> "TritonClient":
    """A connection to the server that these settings name, for its language model and its embedding model."""
    from dragon_runtime.engines.triton.client import TritonClient

    return TritonClient(settings)


async def connect_engine(client: "TritonClient") -> "TritonEngine":
    """The language model of a Triton server.

    Raises:
        DragonError: the server or the model is not there.
    """
    from dragon_runtime.engines.triton.engine import TritonEngine

    return await TritonEngine.connect(client)
