"""A llama.cpp engine over a tiny model whose decodes wait for the test, are counted, and may be replaced."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dragon_core.types import Step
from dragon_runtime.engines.llama.deliveries import Deliveries, ThreadDeliveries
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.engines.llama.memory import LlamaSequences, Piece
from dragon_runtime.engines.llama.model import LlamaModel
from dragon_runtime.engines.llama.session import LlamaSession
from dragon_runtime.interfaces import EngineRequest, FailureListener, StepListener
from tests.contracts.engine_sessions import CONTEXT_LENGTH, NUM_SEQUENCES
from tests.fakes.tiny_model import write_tiny_model

Decode = Callable[[Sequence[Piece]], list[NDArray[np.float32]]]


class WatchedSequences(LlamaSequences):
    """Sequences whose decodes are counted; gated ones wait until the test lets them go; `decode_instead` replaces."""

    num_begun = 0
    is_gated = False
    decode_instead: Decode | None = None

    def __init__(self, model: LlamaModel) -> None:
        super().__init__(model, num_sequences=NUM_SEQUENCES, context_length=CONTEXT_LENGTH, num_threads=1)
        self.model = model
        self._arrived, self._may_go = threading.Semaphore(0), threading.Semaphore(0)

    def decode(self, pieces: Sequence[Piece]) -> list[NDArray[np.float32]]:
        self.num_begun += 1
        if self.is_gated:
            self._arrived.release()
            self._may_go.acquire()
        return super().decode(pieces) if self.decode_instead is None else self.decode_instead(pieces)

    async def arrived(self) -> None:
        """The engine's thread is about to decode and waits."""
        assert await asyncio.to_thread(self._arrived.acquire, timeout=60)

    def let_go(self) -> None:
        self._may_go.release()

    def open_gate(self) -> None:
        """Let the waiting decode go, and every later one."""
        self.is_gated = False
        self._may_go.release()


class StepsFromThread(LlamaEngine):
    """An engine of listeners elsewhere, for listeners that are here after all: on the event loop."""

    async def open(self, request: EngineRequest, *, on_step: StepListener, on_failure: FailureListener) -> LlamaSession:
        loop = asyncio.get_running_loop()

        def post(ticket: int, step: Step) -> None:
            loop.call_soon_threadsafe(on_step, ticket, step)

        return await super().open(request, on_step=post, on_failure=on_failure)


@asynccontextmanager
async def watched_engine(
    folder: Path, *, kind: type[LlamaEngine] = LlamaEngine, deliveries: Deliveries | None = None
) -> AsyncIterator[tuple[LlamaEngine, WatchedSequences]]:
    """An engine that runs, and the sequences it decodes with. Whoever opens sessions closes them."""
    memory = WatchedSequences(LlamaModel(write_tiny_model(folder / "tiny.gguf")))
    engine = kind(memory.model, memory, num_sequences=NUM_SEQUENCES, deliveries=deliveries)
    engine._thread.start()
    try:
        yield engine, memory
        memory.open_gate()
        engine.check_integrity()
    finally:
        memory.open_gate()
        await engine.close()


def engine_of_listeners_elsewhere(
    folder: Path,
) -> AbstractAsyncContextManager[tuple[LlamaEngine, WatchedSequences]]:
    """The same, of one that makes steps ahead."""
    return watched_engine(folder, kind=StepsFromThread, deliveries=ThreadDeliveries(asyncio.get_running_loop()))


def num_dropped(caplog: pytest.LogCaptureFixture) -> int:
    """Batches that were aborted, which is nothing to warn of."""
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    return sum("was dropped" in record.message for record in caplog.records)
