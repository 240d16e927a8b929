"""The edge daemon: assembles the parts of a device and runs them until it is stopped."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dragon_core.errors import EngineError, ModelError
from dragon_core.topics import Topics
from dragon_runtime.answering.metrics import PeerMetrics
from dragon_runtime.answering.preparation import Preparation
from dragon_runtime.channel.connection import MqttConnection
from dragon_runtime.channel.mqtt import EdgeChannels
from dragon_runtime.channel.probe import CloudProbe
from dragon_runtime.documents.ingestion import Ingestion
from dragon_runtime.documents.registry import DocumentRegistry
from dragon_runtime.embedding.choice import open_embedder
from dragon_runtime.engines.choice import open_engine
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.interfaces import Embedder
from dragon_runtime.models.resolving import resolve_model
from dragon_runtime.process.tasks import end_tasks
from dragon_runtime.store.choice import open_store
from dragon_runtime.store.milvus import MilvusStore
from edge_daemon.answers import Check, Readiness
from edge_daemon.api.app import create_app, serving
from edge_daemon.fleet.live import LiveSettings, Participation, daemon_version, in_fleet
from edge_daemon.fleet.member import DeviceFacts, new_session, will_of
from edge_daemon.fleet.traffic import Traffic
from edge_daemon.fleet.twin import MODELS, Twin
from edge_daemon.session_answers import SessionAnswers
from edge_daemon.settings import EdgeSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """The model and the documents of a device."""

    model_path: Path
    engine: LlamaEngine
    embedder: Embedder
    store: MilvusStore
    ingestion: Ingestion

    async def name_of_document(self, document_id: str) -> str | None:
        document = await self.ingestion.get(document_id)
        return None if document is None else document.name


@asynccontextmanager
async def _parts(settings: EdgeSettings) -> AsyncGenerator[_Parts, None]:
    async with AsyncExitStack() as stack:
        model_path = await resolve_model(settings.model, settings.data_folder / MODELS)
        engine = await open_engine(settings.model, model_path)
        stack.push_async_callback(engine.close)
        embedder = await open_embedder(settings.embedding.uri)
        stack.callback(embedder.close)
        store = await open_store(settings.store, settings.store_folder, embedder=embedder)
        stack.push_async_callback(store.close)
        registry = DocumentRegistry(settings.data_folder / "documents.sqlite")
        stack.callback(registry.close)
        ingestion = await stack.enter_async_context(Ingestion(registry, store, embedder))
        yield _Parts(model_path=model_path, engine=engine, embedder=embedder, store=store, ingestion=ingestion)


@asynccontextmanager
async def running(
    own: EdgeSettings, *, twin: Twin | None = None, restart: asyncio.Event | None = None
) -> AsyncGenerator[int, None]:
    """Run a device inside the scope; yields the port of its API. `restart` is set when another model is to be loaded.

    Raises:
        DragonError: a part cannot start; says which and what to do.
    """
    twin = Twin(own) if twin is None else twin
    settings = twin.settings
    api_key = settings.api.api_key()
    async with _parts(settings) as parts, AsyncExitStack() as stack:
        twin.keep_model()
        metrics = PeerMetrics("dragon_edge")
        metrics.watch_free_sequences(lambda: parts.engine.num_free_sequences)
        topics, session = Topics(settings.namespace, settings.deployment), new_session()
        will = will_of(topics, settings.device, session)
        connection = MqttConnection(settings.broker, client_id=f"{settings.deployment}-{settings.device}", will=will)
        connection.on_change(metrics.set_connected)
        channels = EdgeChannels(connection, topics, settings.device)
        await channels.start()
        await stack.enter_async_context(connection)
        probe = await stack.enter_async_context(CloudProbe(channels.create))
        connection.on_change(lambda _: probe.wake())
        preparation = Preparation(
            engine=parts.engine, embedder=parts.embedder, retriever=parts.store, protocol=settings
        )
        traffic = Traffic(probe)
        answers = SessionAnswers(
            preparation,
            settings,
            model_name=parts.model_path.stem,
            create_channel=channels.create,
            name_of_document=parts.name_of_document,
            readiness=lambda: _readiness(parts, connection, probe),
            metrics=metrics,
            on_degraded=probe.wake,
            on_report=lambda report, is_solo: traffic.take(report, is_solo=is_solo),
        )
        live = LiveSettings(settings, answers)
        app = create_app(
            answers=answers,
            documents=parts.ingestion,
            metrics=metrics,
            settings=settings.api,
            api_key=api_key,
            defaults=live.request_defaults,
        )
        async with serving(app, host=settings.api.host, port=settings.api.port) as port:
            participation = Participation(
                session=session,
                twin=twin,
                facts=_facts(parts, preparation),
                traffic=traffic,
                live=live,
                restart=restart,
            )
            async with in_fleet(own, connection, topics, participation):
                logger.info("device %s answers on %s/v1", settings.device, _url(settings.api.host, port))
                yield port
                logger.info("stopping")


def _facts(parts: _Parts, preparation: Preparation) -> DeviceFacts:
    vocabulary = preparation.fingerprint.vocabulary
    return DeviceFacts(daemon_version=daemon_version(), model=parts.model_path.stem, vocabulary=vocabulary)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _readiness(parts: _Parts, connection: MqttConnection, probe: CloudProbe) -> Readiness:
    return Readiness(
        model=Check(is_ready=True, message=parts.model_path.name),
        store=Check(is_ready=True, message="open"),
        broker=Check(is_ready=connection.is_connected, message=connection.status),
        cloud=_cloud_check(connection, probe),
    )


def _cloud_check(connection: MqttConnection, probe: CloudProbe) -> Check:
    if not connection.is_connected or not probe.is_answered:
        return Check(is_ready=False, message="no cloud peer answers: answers come from this device alone")
    return Check(is_ready=True, message=f"answers in {1000 * (probe.rtt_seconds or 0):.0f} ms")


async def run(settings: EdgeSettings, stopped: asyncio.Event) -> None:
    """Run a device until `stopped` is set; with another model whenever its operator wants that."""
    twin = Twin(settings)
    while not stopped.is_set():
        restart = asyncio.Event()
        try:
            async with running(settings, twin=twin, restart=restart):
                await _first_of(stopped, restart)
        except (ModelError, EngineError) as error:
            # A model that came over the network must not keep the device from answering with the one it had.
            if not twin.refuse_model(f"the configured model cannot be used: {error}"):
                raise
            logger.warning("the model from the operator cannot be used; continuing without it: %s", error)


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait(), name="wait to stop") for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end_tasks(waiting)
