"""Which connections go through a proxy of the environment: downloads, and nothing else."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dragon_core.errors import DragonError, ModelError, SettingsError, StoreError
from dragon_runtime.engines.triton.client import TritonClient
from dragon_runtime.models.fetching import FetchError, FetchReason, Request, fetch
from dragon_runtime.models.resolving import resolve_model
from dragon_runtime.outgoing import PROXY_VARIABLES, download_client
from dragon_runtime.settings import ModelSettings, TritonSettings
from dragon_runtime.store.milvus import MilvusStore
from tests.fakes.engine import FlatEmbedder
from tests.servers.listener import Listener

ROOT = Path(__file__).parents[3]
ADDRESS = "http://models.example/a.gguf"


def environment_of(proxy: Listener, *, scheme: str = "http") -> dict[str, str]:
    """Every variable that any library takes a proxy from."""
    names = (*PROXY_VARIABLES, "grpc_proxy", "mqtt_proxy")
    address = f"{scheme}://127.0.0.1:{proxy.port}"
    return {variable: address for name in names for variable in (name, name.upper())}


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXY_VARIABLES, "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    with Listener() as proxy:
        for name, value in environment_of(proxy).items():
            monkeypatch.setenv(name, value)
        yield proxy


async def test_a_download_goes_through_the_proxy(proxy: Listener, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=re.escape("models.example/a.gguf cannot be fetched")):
        await fetch(Request(url=ADDRESS), tmp_path / "a.gguf")
    (asked,) = proxy.received
    assert asked.startswith(b"GET http://models.example/a.gguf ")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_download_from_this_machine_does_not(proxy: Listener, tmp_path: Path, host: str) -> None:
    with Listener() as server:
        with pytest.raises(FetchError):
            await fetch(Request(url=f"http://{host}:{server.port}/a.gguf"), tmp_path / "a.gguf")
        assert len(server.received) == 1
    assert proxy.received == []


async def test_neither_triton_nor_the_store_is_asked_through_a_proxy(proxy: Listener) -> None:
    with Listener() as server:
        triton = TritonClient(TritonSettings(address=f"127.0.0.1:{server.port}"))
        with pytest.raises(DragonError):
            await triton.reload("m")
        await triton.close()
        assert server.received
    with Listener() as server:
        opening = MilvusStore.open_server(f"http://127.0.0.1:{server.port}", embedder=FlatEmbedder())
        with pytest.raises(StoreError):
            await opening
        assert server.received
    assert proxy.received == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks5://me:the-password@127.0.0.1:1"),
        ("https_proxy", "ftp://me:the-password@127.0.0.1:1"),
        ("HTTP_PROXY", "http://me:the-password"),
        ("HTTP_PROXY", "http://me:the-password@127.0.0.1:99999999"),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable} cannot be used: write a proxy as http://HOST:PORT") as caught:
        download_client(ADDRESS, timeout=1)
    assert "the-password" not in str(caught.value)
    with pytest.raises(ModelError, match=f"{variable} cannot be used") as wrapped:
        await resolve_model(ModelSettings(url=ADDRESS, sha256="a" * 64), tmp_path)
    assert isinstance(wrapped.value.__cause__, FetchError)
    assert wrapped.value.__cause__.reason is FetchReason.UNREACHABLE


async def test_an_address_with_a_port_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="it is no valid address"):
        await fetch(Request(url="http://127.0.0.1:99999999/a.gguf"), tmp_path / "a.gguf")


async def test_a_proxy_that_is_away_is_said_to_be_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with pytest.raises(FetchError, match=r"\(HTTP_PROXY is set: is that proxy right\?\)$"):
        await fetch(Request(url=ADDRESS), tmp_path / "a.gguf")


def test_one_file_makes_the_clients() -> None:
    made = re.compile(r"httpx\.(Async)?Client\(|httpx\.(get|post|stream|request)\(|urlopen\(")
    shipped = ("dragon_*/**/*.py", "edge_daemon/**/*.py", "cloud_peer/**/*.py", "operator/**/*.py", "images/**/*.py")
    files = [path for pattern in (*shipped, "charts/**/*.py") for path in ROOT.glob(pattern)]
    assert len(files) > 100
    assert [path.name for path in files if made.search(path.read_text())] == ["outgoing.py"]
