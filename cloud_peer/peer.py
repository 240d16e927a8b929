"""Puts the parts of a cloud peer together and runs them until it is told to stop."""

import asyncio
import contextlib
import logging
from contextlib import AsyncExitStack
from pathlib import Path

from cloud_peer.settings import CloudSettings
from cloud_peer.worker import CloudWorker
from dragon_core.errors import DragonError
from dragon_core.topics import Topics
from dragon_runtime.document_registry import DocumentRegistry
from dragon_runtime.embedders import open_embedder
from dragon_runtime.ingestion import Ingestion, add_folder
from dragon_runtime.interfaces import Embedder, Engine
from dragon_runtime.llama_engine import LlamaEngine
from dragon_runtime.metrics import PeerMetrics
from dragon_runtime.models import resolve_model
from dragon_runtime.mqtt_channel import CloudChannels
from dragon_runtime.mqtt_connection import MqttConnection
from dragon_runtime.preparation import Preparation
from dragon_runtime.settings import TritonSettings
from dragon_runtime.stores import open_store

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 10.0
TRITON_SECONDS = 1.0


async def run(settings: CloudSettings, stopped: asyncio.Event) -> None:
    """Serve sessions until `stopped` is set, then drain.

    Raises:
        DragonError: a part cannot start; says which and what to do.
    """
    async with AsyncExitStack() as stack:
        metrics = PeerMetrics("dragon_cloud")
        models = await _open_models(settings, stack, metrics, stopped)
        if models is None:
            return
        engine, embedder = models
        store = await open_store(settings.store, settings.store_folder, embedder=embedder)
        stack.push_async_callback(store.close)
        registry = DocumentRegistry(settings.data_folder / "documents.sqlite")
        stack.callback(registry.close)
        ingestion = await stack.enter_async_context(Ingestion(registry, store, embedder))
        if settings.documents is not None:
            await _ingest(ingestion, settings.documents, stopped)
        if stopped.is_set():
            return
        worker = CloudWorker(
            Preparation(engine=engine, embedder=embedder, retriever=store, protocol=settings),
            replica=settings.replica,
            max_sessions=settings.max_sessions,
            metrics=metrics,
        )
        connection = MqttConnection(settings.broker, client_id=f"{settings.deployment}-{settings.replica}")
        connection.on_change(metrics.set_connected)
        topics = Topics(settings.namespace, settings.deployment)
        channels = CloudChannels(connection, topics, settings.replica, worker.on_open)
        await channels.start()
        await stack.enter_async_context(connection)
        stack.enter_context(metrics.serving(settings.metrics.host, settings.metrics.port))
        logger.info("replica %s serves %s", settings.replica, topics.root)
        await stopped.wait()
        await channels.stop_accepting()
        await worker.drain(settings.drain_seconds)


async def _open_models(
    settings: CloudSettings, stack: AsyncExitStack, metrics: PeerMetrics, stopped: asyncio.Event
) -> tuple[Engine, Embedder] | None:
    """The language model and the embedding model, in this process or on Triton; None when told to stop meanwhile."""
    if settings.triton.address is not None:
        return await _connect_to_triton(settings.triton, stack, stopped)
    model_path = await resolve_model(settings.model, settings.data_folder / "models")
    engine = await LlamaEngine.load(
        model_path,
        context_length=settings.model.context_length,
        num_sequences=settings.model.num_sequences,
        num_threads=settings.model.num_threads,
    )
    stack.push_async_callback(engine.close)
    metrics.watch_free_sequences(lambda: engine.num_free_sequences)
    embedder = await open_embedder(settings.embedding.uri)
    stack.callback(embedder.close)
    return engine, embedder


async def _connect_to_triton(
    settings: TritonSettings, stack: AsyncExitStack, stopped: asyncio.Event
) -> tuple[Engine, Embedder] | None:
    """Wait for a server that is not there yet, as long as it takes: it starts beside us."""
    from dragon_runtime.triton_client import TritonClient
    from dragon_runtime.triton_embedder import TritonEmbedder
    from dragon_runtime.triton_engine import TritonEngine

    client = TritonClient(settings)
    stack.push_async_callback(client.close)
    while not stopped.is_set():
        try:
            engine = await TritonEngine.connect(client)
            embedder = await TritonEmbedder.connect(client)
        except DragonError as error:
            logger.info("waiting for Triton at %s: %s", settings.address, error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TRITON_SECONDS):
                    await stopped.wait()
            continue
        stack.push_async_callback(engine.close)
        return engine, embedder
    return None


async def _ingest(ingestion: Ingestion, folder: Path, stopped: asyncio.Event) -> None:
    """Add the public documents and return when they can be found, or when we are told to stop."""
    report = await add_folder(ingestion, folder)
    for path, reason in report.skipped:
        logger.warning("skipped %s: %s", path, reason)
    done = asyncio.create_task(ingestion.wait_until_done(), name="public documents")
    stop = asyncio.create_task(stopped.wait(), name="stop")
    try:
        while not (done.done() or stop.done()):
            await asyncio.wait({done, stop}, timeout=PROGRESS_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                logger.info("public documents: %d are not ready yet", await ingestion.count_waiting())
    finally:
        for task in (done, stop):
            task.cancel()
        await asyncio.gather(done, stop, return_exceptions=True)
    logger.info("public documents: %d added, %d known", report.num_added, report.num_known)
