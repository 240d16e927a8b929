"""Client of a device's HTTP API (docs/http-api.md), for the command line."""

import contextlib
import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, Self

import httpx

from dragon_core.errors import DragonError, OurError, SettingsError
from dragon_runtime.outgoing import direct_client
from dragon_runtime.redaction import redacted

Body = dict[str, Any]
TIMEOUT = httpx.Timeout(10.0, read=600.0)


class ApiClient:
    """A device's API at `url`; use it inside `async with`."""

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        """Take an address, with or without /v1 at its end.

        Raises:
            SettingsError: the address is not valid.
        """
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        # The address that OpenAI's clients are given ends with /v1; ours may be given the same.
        self._url = url.rstrip("/").removesuffix("/v1")
        if not self._url.startswith(("http://", "https://")):
            raise SettingsError(f"{redacted(url)} is not the address of an API; write it as http://host:port")
        try:
            self._client = direct_client(base_url=self._url, headers=headers, timeout=TIMEOUT)
        except httpx.InvalidURL:
            raise SettingsError(f"{redacted(url)} is not the address of an API; write it as http://host:port") from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.aclose()

    async def readiness(self) -> Body | None:
        """The answer of /readyz, or None while nothing listens."""
        try:
            response = await self._client.get("/readyz", timeout=5.0)
        except httpx.TransportError:
            return None
        return _json(response)

    async def ask(self, request: Body) -> AsyncGenerator[Body, None]:
        """Non-empty chunks of a streamed completion, as they arrive.

        Raises:
            OurError: the device cannot be reached or refuses, with its reason. DragonError: the answer broke off.
        """
        with self._errors():
            async with self._client.stream(
                "POST", "/v1/chat/completions", json={**request, "stream": True}
            ) as response:
                if response.is_error:
                    await response.aread()
                    _require_success(response)
                async for line in response.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        raise DragonError(f"the answer broke off: {chunk['error']['message']}")
                    yield chunk

    async def model(self) -> str:
        """The name of the model that answers."""
        return str((await self._request("GET", "/v1/models"))["data"][0]["id"])

    async def add_document(self, path: Path) -> Body:
        """Send a file; returns the document with its progress.

        Raises:
            OurError: the file cannot be read, or the device refuses it.
        """
        try:
            with path.open("rb") as file:
                return await self._request("POST", "/v1/documents", files={"file": (path.name, file)})
        except OSError as error:
            raise OurError(f"{path} cannot be read: {error.strerror}") from error

    async def document(self, document_id: str) -> Body:
        return await self._request("GET", f"/v1/documents/{document_id}")

    async def delete_document(self, document_id: str) -> Body:
        return await self._request("DELETE", f"/v1/documents/{document_id}")

    async def search(self, query: str, *, num_passages: int) -> list[Body]:
        """The passages nearest to a query, most relevant first."""
        body = {"query": query, "num_passages": num_passages}
        return list((await self._request("POST", "/v1/documents/search", json=body))["data"])

    async def documents(self) -> AsyncGenerator[Body, None]:
        """Every document, oldest first."""
        after: str | None = None
        while True:
            page = await self._request("GET", "/v1/documents", params={} if after is None else {"after": after})
            for document in page["data"]:
                yield document
            after = page["next_after"]
            if after is None:
                return

    async def _request(self, method: str, path: str, **arguments: Any) -> Body:
        with self._errors():
            response = await self._client.request(method, path, **arguments)
            _require_success(response)
            return _json(response)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise OurError(f"nothing answers at {self._url}; `dragonctl up` starts a stack on this machine") from error
        except httpx.TransportError as error:
            raise OurError(f"{self._url} broke off: {type(error).__name__} {error}") from error


def _json(response: httpx.Response) -> Body:
    try:
        body = response.json()
    except ValueError as error:
        raise OurError(f"{response.url} answers {response.status_code} without JSON; is it a dragon-edge?") from error
    return dict(body)


def _require_success(response: httpx.Response) -> None:
    if response.is_success:
        return
    body = _json(response)
    problem = body.get("error")
    message = problem.get("message") if isinstance(problem, dict) else None
    raise OurError(message or f"{response.url} answers {response.status_code}")
