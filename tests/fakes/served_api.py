"""The edge daemon's API with fakes behind it, on a loopback port."""

import functools
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from openai import AsyncOpenAI
from pydantic import SecretStr

from dragon_runtime.answering.metrics import PeerMetrics
from edge_daemon.answers import AnswerService
from edge_daemon.api.app import create_app, serving
from edge_daemon.settings import ApiSettings
from tests.fakes.answers import ScriptedAnswers
from tests.fakes.documents import DocumentsInMemory

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Never used: a client that makes its own reads a large file of certificates first."""


class ServedApi:
    """Where it listens, what is behind it, and two clients of it. `key` is what the openai client sends."""

    def __init__(self, port: int, documents: DocumentsInMemory, metrics: PeerMetrics, *, key: str) -> None:
        self.port, self.documents, self.metrics, self._key = port, documents, metrics, key
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.AsyncClient(base_url=self.url, verify=NO_TLS)

    @functools.cached_property
    def openai(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=self._key, max_retries=0)

    async def close(self) -> None:
        await self.http.aclose()
        if "openai" in self.__dict__:
            await self.openai.close()


@asynccontextmanager
async def served_api(
    answers: AnswerService | None = None,
    documents: DocumentsInMemory | None = None,
    *,
    settings: ApiSettings | None = None,
    key: str | None = None,
    client_key: str = "none",
) -> AsyncIterator[ServedApi]:
    """The API on a free port for the length of a scope."""
    documents, metrics = documents or DocumentsInMemory(), PeerMetrics("dragon_edge")
    app = create_app(
        answers=answers or ScriptedAnswers(),
        documents=documents,
        metrics=metrics,
        settings=settings or ApiSettings(),
        api_key=None if key is None else SecretStr(key),
    )
    async with serving(app, host="127.0.0.1", port=0) as port:
        api = ServedApi(port, documents, metrics, key=client_key)
        try:
            yield api
        finally:
            await api.close()
