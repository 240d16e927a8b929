"""The toy engine keeps the contract that the tests of sessions rely on."""

from collections.abc import AsyncIterator

import pytest

from tests.contracts.engine import EngineContract
from tests.contracts.engine_sessions import CONTEXT_LENGTH, NUM_SEQUENCES
from tests.fakes.toy_engine_async import ToyEngine


class TestToyEngine(EngineContract):
    """A language model of two dozen words."""

    @pytest.fixture
    async def engine(self) -> AsyncIterator[ToyEngine]:
        engine = ToyEngine(num_sequences=NUM_SEQUENCES, context_length=CONTEXT_LENGTH)
        yield engine
        await engine.close()
