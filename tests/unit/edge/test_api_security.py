"""Who may call the API: the Host, the Origin, the key, and how much is sent."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI, AuthenticationError

from dragon_core.errors import SettingsError
from dragon_runtime.answering.metrics import PeerMetrics
from edge_daemon.api.app import create_app, serving
from edge_daemon.api.security import host_name
from edge_daemon.settings import ApiSettings
from tests.fakes.answers import ScriptedAnswers
from tests.fakes.documents import DocumentsInMemory
from tests.fakes.served_api import served_api

KEY = "a key that is long enough"
OTHER_HOSTS = (
    "evil.example",
    "evil.example:8642",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "192.168.1.7",
    "0.0.0.0",  # noqa: S104 - browsers take it for this machine
    "[2001:db8::1]:80",
    "[::1].evil.example",
    "127.0.0.1:80:evil.example",
    "127.0.0.1@evil.example",
    "",
)
PATHS = ("/v1/models", "/v1/documents", "/metrics", "/healthz", "/readyz", "/openapi.json", "/nothing")


async def test_a_host_that_is_not_this_machine_is_refused_everywhere() -> None:
    async with served_api() as api:
        for host, path in itertools.product(OTHER_HOSTS, PATHS):
            response = await api.http.get(path, headers={"Host": host})
            assert response.status_code == 403, (host, path)
            assert response.json()["error"]["code"] == "host_not_allowed"


async def test_every_name_of_this_machine_is_served() -> None:
    async with served_api() as api:
        for host in ("localhost", "LOCALHOST:1", "127.0.0.1:99", "127.1.2.3", "[::1]:8642", "localhost."):
            assert (await api.http.get("/v1/models", headers={"Host": host})).status_code == 200, host


async def test_two_hosts_or_none_are_refused() -> None:
    async with served_api() as api:
        for lines in ("Host: localhost\r\nHost: localhost\r\n", ""):
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(f"GET /v1/models HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode())
            status = await reader.readline()
            writer.close()
            await writer.wait_closed()
            assert status.split()[1] in {b"400", b"403"}


async def test_hosts_can_be_allowed() -> None:
    settings = ApiSettings(allowed_hosts=("pi.lan", "[2001:DB8::1]"))
    async with served_api(settings=settings) as api:
        for host in ("pi.lan", "PI.lan:80", "[2001:db8::1]:8642"):
            assert (await api.http.get("/v1/models", headers={"Host": host})).status_code == 200
        assert (await api.http.get("/v1/models", headers={"Host": "other.lan"})).status_code == 403


async def test_pages_may_not_call_unless_their_origin_is_allowed() -> None:
    origins = ("https://evil.example", "http://localhost:3000", "null", "http://127.0.0.1")
    async with served_api() as api:
        for origin, method in itertools.product(origins, ("GET", "POST", "OPTIONS")):
            response = await api.http.request(method, "/v1/models", headers={"Origin": origin})
            assert response.status_code == 403
            assert response.json()["error"]["code"] == "origin_not_allowed"
            assert "access-control-allow-origin" not in response.headers


async def test_an_allowed_origin_gets_what_a_browser_asks_for() -> None:
    settings = ApiSettings(allowed_origins=("https://app.example",))
    async with served_api(settings=settings, key=KEY) as api:
        asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        preflight = await api.http.options("/v1/chat/completions", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        headers = {"Origin": "https://app.example", "Authorization": f"Bearer {KEY}"}
        response = await api.http.get("/v1/models", headers=headers)
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        other = await api.http.options("/v1/chat/completions", headers={**asked, "Origin": "https://app.example.evil"})
        assert other.status_code == 403


async def test_the_key_opens_and_nothing_else_does() -> None:
    async with served_api(key=KEY, client_key=KEY) as api:
        assert (await api.openai.models.list()).data
        async with AsyncOpenAI(base_url=f"{api.url}/v1", api_key="wrong", max_retries=0) as stranger:
            with pytest.raises(AuthenticationError) as caught:
                await stranger.models.list()
        assert caught.value.code == "invalid_api_key"
        for given in (None, "", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", KEY, "Bearer \xff"):
            headers = [] if given is None else [(b"Authorization", given.encode("latin-1"))]
            for path in ("/v1/models", "/v1/documents", "/metrics", "/openapi.json", "/nothing"):
                response = await api.http.get(path, headers=headers)
                assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer"), given
        for path in ("/healthz", "/readyz"):
            assert (await api.http.get(path)).status_code == 200
        assert (await api.http.get("/v1/models", headers={"Authorization": f"bearer  {KEY}"})).status_code == 200


async def test_without_a_key_no_other_machine_can_reach_it() -> None:
    parts = {"answers": ScriptedAnswers(), "documents": DocumentsInMemory(), "metrics": PeerMetrics("dragon_edge")}
    with pytest.raises(ValueError, match="reachable from other machines: set api_key_file"):
        ApiSettings(host="192.168.1.7")
    # Neither when the settings were made without their checks, nor when the key's file was not read.
    for settings in (
        ApiSettings.model_construct(host="0.0.0.0"),  # noqa: S104 - refused is the point
        ApiSettings.model_construct(host="192.168.1.7"),
        ApiSettings.model_construct(api_key_file="key"),
    ):
        with pytest.raises(SettingsError, match="there is no key"):
            create_app(settings=settings, api_key=None, **parts)  # type: ignore[arg-type]


async def test_a_port_in_use_is_a_setting_that_cannot_be_met() -> None:
    async with served_api() as api:
        app = create_app(
            answers=ScriptedAnswers(),
            documents=DocumentsInMemory(),
            metrics=PeerMetrics("dragon_edge"),
            settings=ApiSettings(),
            api_key=None,
        )
        with pytest.raises(SettingsError, match=rf"api\.port: cannot listen on 127\.0\.0\.1:{api.port}: .*in use"):
            async with serving(app, host="127.0.0.1", port=api.port):
                pass


async def test_a_request_that_is_too_large_is_refused_before_it_is_read() -> None:
    async with served_api(settings=ApiSettings(max_request_bytes=1024)) as api:
        body = json.dumps({"model": "toy", "messages": [{"role": "user", "content": "x" * 2000}]}).encode()

        async def in_chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 100):
                yield body[start : start + 100]

        headers = {"Content-Type": "application/json"}
        announced = await api.http.post("/v1/chat/completions", content=body, headers=headers)
        chunked = await api.http.post("/v1/chat/completions", content=in_chunks(), headers=headers)
        for response in (announced, chunked):
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "request_too_large"
            assert "at most 1024 bytes" in response.json()["error"]["message"]
        assert f"{len(body)} bytes" in announced.json()["error"]["message"]
        assert await status_of(api.port, "9" * 5000) in {b"400", b"413"}
        assert await status_of(api.port, "9" * 18) == b"413"


async def status_of(port: int, length: str) -> bytes:
    """The status of a request that announces a body of so many bytes and sends none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
    status = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return status.split()[1]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("pi.lan", "pi.lan"),
        ("PI.lan:8642", "pi.lan"),
        ("[::1]:8642", "::1"),
        ("[::1]", "::1"),
        ("::1", ""),
        ("pi.lan:", ""),
        ("pi.lan:http", ""),
        ("[::1]x", ""),
        ("", ""),
    ],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert host_name(header) == name
