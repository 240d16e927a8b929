"""The edge daemon: puts the parts of a device together and runs them until it is told to stop."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from dragon_core.topics import Topics
from dragon_runtime.cloud_probe import CloudProbe
from dragon_runtime.document_registry import DocumentRegistry
from dragon_runtime.embedders import open_embedder
from dragon_runtime.ingestion import Ingestion
from dragon_runtime.llama_engine import LlamaEngine
from dragon_runtime.metrics import PeerMetrics
from dragon_runtime.models import resolve_model
from dragon_runtime.mqtt_channel import EdgeChannels
from dragon_runtime.mqtt_connection import MqttConnection
from dragon_runtime.preparation import Preparation
from dragon_runtime.stores import open_store
from edge_daemon.answers import Check, Readiness
from edge_daemon.api.app import create_app, serving
from edge_daemon.session_answers import SessionAnswers
from edge_daemon.settings import EdgeSettings

logger = logging.getLogger(__name__)


@asynccontextmanager
async def running(settings: EdgeSettings) -> AsyncGenerator[int, None]:
    """Run a device inside the scope; yields the port of its API.

    Raises:
        DragonError: a part cannot start; says which and what to do.
    """
    api_key = settings.api.api_key()
    async with AsyncExitStack() as stack:
        model_path = await resolve_model(settings.model, settings.data_folder / "models")
        engine = await LlamaEngine.load(
            model_path,
            context_length=settings.model.context_length,
            num_sequences=settings.model.num_sequences,
            num_threads=settings.model.num_threads,
        )
        stack.push_async_callback(engine.close)
        embedder = await open_embedder(settings.embedding.uri)
        stack.callback(embedder.close)
        store = await open_store(settings.store, settings.store_folder, embedder=embedder)
        stack.push_async_callback(store.close)
        registry = DocumentRegistry(settings.data_folder / "documents.sqlite")
        stack.callback(registry.close)
        ingestion = await stack.enter_async_context(Ingestion(registry, store, embedder))
        metrics = PeerMetrics("dragon_edge")
        metrics.watch_free_sequences(lambda: engine.num_free_sequences)
        connection = MqttConnection(settings.broker, client_id=f"{settings.deployment}-{settings.device}")
        connection.on_change(metrics.set_connected)
        channels = EdgeChannels(connection, Topics(settings.namespace, settings.deployment), settings.device)
        await channels.start()
        await stack.enter_async_context(connection)
        probe = await stack.enter_async_context(CloudProbe(channels.create))
        connection.on_change(lambda _: probe.wake())

        def readiness() -> Readiness:
            return Readiness(
                model=Check(is_ready=True, message=model_path.name),
                store=Check(is_ready=True, message="open"),
                broker=Check(is_ready=connection.is_connected, message=connection.problem or "connected"),
                cloud=_cloud_check(connection, probe),
            )

        async def name_of(document_id: str) -> str | None:
            document = await ingestion.get(document_id)
            return None if document is None else document.name

        answers = SessionAnswers(
            Preparation(engine=engine, embedder=embedder, retriever=store, protocol=settings),
            settings,
            model_name=model_path.stem,
            create_channel=channels.create,
            name_of_document=name_of,
            readiness=readiness,
            metrics=metrics,
            on_degraded=probe.wake,
        )
        app = create_app(answers=answers, documents=ingestion, metrics=metrics, settings=settings.api, api_key=api_key)
        async with serving(app, host=settings.api.host, port=settings.api.port) as port:
            host = f"[{settings.api.host}]" if ":" in settings.api.host else settings.api.host
            logger.info("device %s answers on http://%s:%d/v1", settings.device, host, port)
            yield port
            logger.info("stopping")


def _cloud_check(connection: MqttConnection, probe: CloudProbe) -> Check:
    if not connection.is_connected or not probe.is_answered:
        return Check(is_ready=False, message="no cloud peer answers: answers come from this device alone")
    return Check(is_ready=True, message=f"answers in {1000 * (probe.rtt_seconds or 0):.0f} ms")


async def run(settings: EdgeSettings, stopped: asyncio.Event) -> None:
    """Run a device until `stopped` is set."""
    async with running(settings):
        await stopped.wait()
