"""The contract of engines over llama.cpp: with the bundled model, and with tiny ones of random weights."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.models import bundled_model
from tests.contracts.engine import EngineContract
from tests.contracts.engine_sessions import CONTEXT_LENGTH, NUM_SEQUENCES
from tests.fakes.tiny_model import write_tiny_model

pytestmark = pytest.mark.integration


async def load(path: Path) -> LlamaEngine:
    return await LlamaEngine.load(path, context_length=CONTEXT_LENGTH, num_sequences=NUM_SEQUENCES, num_threads=1)


class TestTinyLlamaEngine(EngineContract):
    """Random weights: every token matters to every distribution, and a test takes milliseconds."""

    num_interleavings = 25

    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[LlamaEngine]:
        engine = await load(write_tiny_model(tmp_path / "tiny.gguf"))
        yield engine
        await engine.close()


class TestBundledLlamaEngine(EngineContract):
    """SmolLM2-135M."""

    num_interleavings = 1

    @pytest.fixture
    async def engine(self) -> AsyncIterator[LlamaEngine]:
        engine = await load(bundled_model())
        yield engine
        await engine.close()
