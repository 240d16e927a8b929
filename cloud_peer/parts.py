"""Opens what a cloud peer stands on: models in this process or on Triton, and the store. Waits for servers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TypeVar

from cloud_peer.settings import CloudSettings
from dragon_core.errors import DragonError, RetryableError
from dragon_runtime.answering.metrics import PeerMetrics
from dragon_runtime.embedding.choice import connect_embedder, open_embedder
from dragon_runtime.engines.choice import connect_engine, open_client, open_engine
from dragon_runtime.interfaces import Embedder, Engine
from dragon_runtime.models.resolving import resolve_model
from dragon_runtime.process.tasks import wait_at_most
from dragon_runtime.store.choice import open_store
from dragon_runtime.store.milvus import MilvusStore

if TYPE_CHECKING:
    from dragon_runtime.engines.triton.client import TritonClient
    from dragon_runtime.engines.triton.engine import TritonEngine

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
Opened = TypeVar("Opened")


class Parts:
    """Opens parts one after the other. What runs on a server of its own is waited for: it starts beside us."""

    def __init__(
        self,
        settings: CloudSettings,
        stack: AsyncExitStack,
        stopped: asyncio.Event,
        *,
        timeout_seconds: float | None = None,
        on_waiting: Callable[[str, str], None] = lambda _part, _problem: None,
    ) -> None:
        """`timeout_seconds`: for all servers together; None: as long as it takes.

        `on_waiting` hears which part is waited for ("models", "documents") and why.
        """
        self._settings, self._stack, self._stopped = settings, stack, stopped
        self._timeout_seconds, self._on_waiting = timeout_seconds, on_waiting
        self._triton = None if settings.triton.address is None else open_client(settings.triton)
        if self._triton is not None:
            stack.push_async_callback(self._triton.close)
        self._given_up_at = None if timeout_seconds is None else asyncio.get_running_loop().time() + timeout_seconds

    async def models(self, metrics: PeerMetrics) -> tuple[Engine, Embedder] | None:
        """The language model and the embedding model; None when told to stop meanwhile.

        Raises:
            DragonError: they cannot be loaded, or the server did not come in time.
        """
        if self._triton is not None:
            return await self._on_triton(self._triton)
        settings = self._settings.model
        engine = await open_engine(settings, await resolve_model(settings, self._settings.data_folder / "models"))
        self._stack.push_async_callback(engine.close)
        metrics.watch_free_sequences(lambda: engine.num_free_sequences)
        return engine, await self._local_embedder()

    async def embedder(self) -> Embedder | None:
        """The embedding model alone; None when told to stop meanwhile.

        Raises:
            DragonError: it cannot be loaded, or the server did not come in time.
        """
        client = self._triton
        if client is None:
            return await self._local_embedder()
        return await self._wait_for("models", f"Triton at {client.address}", lambda: connect_embedder(client))

    async def store(self, embedder: Embedder) -> MilvusStore | None:
        """The public documents; None when told to stop meanwhile.

        Raises:
            DragonError: it cannot be opened, or the server did not come in time.
        """
        settings = self._settings

        async def open_it() -> MilvusStore:
            return await open_store(settings.store, settings.store_folder, embedder=embedder)

        uri = settings.store.uri
        opened = await (open_it() if uri is None else self._wait_for("documents", uri, open_it))
        if opened is not None:
            self._stack.push_async_callback(opened.close)
        return opened

    async def _local_embedder(self) -> Embedder:
        embedder = await open_embedder(self._settings.embedding.uri)
        self._stack.callback(embedder.close)
        return embedder

    async def _on_triton(self, client: "TritonClient") -> tuple[Engine, Embedder] | None:
        async def connect() -> tuple["TritonEngine", Embedder]:
            return await connect_engine(client), await connect_embedder(client)

        opened = await self._wait_for("models", f"Triton at {client.address}", connect)
        if opened is not None:
            self._stack.push_async_callback(opened[0].close)
        return opened

    async def _wait_for(self, part: str, what: str, open_it: Callable[[], Awaitable[Opened]]) -> Opened | None:
        loop = asyncio.get_running_loop()
        problem = told = "it does not answer"
        while not self._stopped.is_set():
            try:
                async with asyncio.timeout_at(self._given_up_at):
                    return await open_it()
            except TimeoutError:
                pass
            except DragonError as error:
                problem = str(error)
                if problem != told:
                    logger.info("waiting for %s: %s", what, problem)
                told = problem
                self._on_waiting(part, f"waiting for {what}: {problem}")
            if self._given_up_at is not None and loop.time() + LOOK_SECONDS > self._given_up_at:
                raise RetryableError(
                    f"{what} did not come up in {self._timeout_seconds:g} s: {problem}",
                    retry_after_seconds=LOOK_SECONDS,
                )
            await wait_at_most(self._stopped.wait(), LOOK_SECONDS)
        return None
