"""Assembles the parts of a cloud peer and runs them until it is stopped."""

import asyncio
import logging
from contextlib import AsyncExitStack
from pathlib import Path

from cloud_peer.parts import Parts
from cloud_peer.settings import CloudSettings
from cloud_peer.worker import CloudWorker
from dragon_core.topics import Topics
from dragon_runtime.answering.metrics import PeerMetrics
from dragon_runtime.answering.preparation import Preparation
from dragon_runtime.channel.connection import MqttConnection
from dragon_runtime.channel.mqtt import CloudChannels
from dragon_runtime.documents.ingestion import Ingestion, add_folder
from dragon_runtime.documents.registry import DocumentRegistry
from dragon_runtime.process.health_server import Readiness, serving
from dragon_runtime.process.tasks import end_tasks

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 10.0
PARTS = ("models", "documents", "broker")
"""The parts a peer needs before it accepts sessions, as /readyz names them."""


async def run(settings: CloudSettings, stopped: asyncio.Event) -> None:
    """Serve sessions until `stopped` is set, then drain.

    Raises:
        DragonError: a part cannot start; says which and what to do.
    """
    async with AsyncExitStack() as stack:
        metrics, readiness = PeerMetrics("dragon_cloud"), Readiness(*PARTS)
        listen = settings.metrics
        stack.enter_context(serving(listen.host, listen.port, metrics.registry, lambda: readiness.problem))
        parts = Parts(settings, stack, stopped, on_waiting=readiness.set)
        models = await parts.models(metrics)
        if models is None:
            return
        engine, embedder = models
        readiness.set("models", None)
        store = await parts.store(embedder)
        if store is None:
            return
        registry = DocumentRegistry(settings.data_folder / "documents.sqlite")
        stack.callback(registry.close)
        ingestion = await stack.enter_async_context(Ingestion(registry, store, embedder))
        if settings.documents is not None:
            await _ingest(ingestion, settings.documents, stopped)
        if stopped.is_set():
            return
        readiness.set("documents", None)
        worker = CloudWorker(
            Preparation(engine=engine, embedder=embedder, retriever=store, protocol=settings),
            replica=settings.replica,
            max_sessions=settings.max_sessions,
            metrics=metrics,
        )
        connection = MqttConnection(settings.broker, client_id=f"{settings.deployment}-{settings.replica}")
        connection.on_change(metrics.set_connected)
        connection.on_change(lambda is_connected: readiness.set("broker", None if is_connected else connection.problem))
        topics = Topics(settings.namespace, settings.deployment)
        channels = CloudChannels(connection, topics, settings.replica, worker.on_open)
        await channels.start()
        await stack.enter_async_context(connection)
        logger.info("replica %s serves %s", settings.replica, topics.root)
        await stopped.wait()
        readiness.set("sessions", "this replica is going away")
        await channels.stop_accepting()
        await worker.drain(settings.drain_seconds)


async def _ingest(ingestion: Ingestion, folder: Path, stopped: asyncio.Event) -> None:
    """Add the public documents and return when they can be found, or when the peer is stopped."""
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
        await end_tasks((done, stop))
    logger.info("public documents: %d added, %d known", report.num_added, report.num_known)
