"""The embedding model on a real Triton server: the same vectors as in this process."""

import asyncio
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest

from dragon_core.errors import EngineError
from dragon_runtime.embedding.choice import open_embedder
from dragon_runtime.embedding.triton import TritonEmbedder
from dragon_runtime.engines.triton.client import TritonClient
from tests.fakes.tiny_model import write_tiny_model
from tests.servers.triton_process import TritonProcess, triton_server

pytestmark = pytest.mark.integration

TEXTS = ["The café is open.", "", "x" * 3000, "東京", *(f"Sentence number {at}." for at in range(150))]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonProcess]:
    folder = tmp_path_factory.mktemp("triton")
    model = write_tiny_model(folder / "tiny.gguf")
    with triton_server(folder, {"causal_lm": {"model_path": model, "num_sequences": 1}}) as running:
        yield running


async def test_vectors_lengths_and_names_are_those_of_the_embedded_model(server: TritonProcess) -> None:
    embedded = await open_embedder("bundled://all-minilm-l6-v2")
    client = TritonClient(server.settings)
    embedder = await TritonEmbedder.connect(client)
    assert (embedder.name, embedder.revision, embedder.dimension) == (
        embedded.name,
        embedded.revision,
        embedded.dimension,
    )
    found = await embedder.embed(TEXTS)
    # How texts are grouped into batches changes their last bits.
    np.testing.assert_allclose(found, await embedded.embed(TEXTS), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    assert (await embedder.embed([])).shape == (0, embedder.dimension)
    for each in TEXTS[:5]:
        assert await asyncio.to_thread(embedder.num_tokens, each) == embedded.num_tokens(each)
    together = await asyncio.gather(*(embedder.embed([each]) for each in TEXTS[:40]))
    np.testing.assert_allclose(np.concatenate(together), found[:40], atol=1e-5)
    await client.close()


async def test_when_its_process_dies_it_is_loaded_again(server: TritonProcess) -> None:
    client = TritonClient(server.settings)
    embedder = await TritonEmbedder.connect(client)
    expected = await embedder.embed(TEXTS[:2])
    (process,) = server.model_processes("embedder")
    os.kill(process, signal.SIGKILL)
    async with asyncio.timeout(60):
        while True:
            try:
                found = await embedder.embed(TEXTS[:2])
                break
            except EngineError:
                await asyncio.sleep(0.2)
    np.testing.assert_array_equal(found, expected)
    await client.close()
