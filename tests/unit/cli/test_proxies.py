"""With a proxy in the environment no command sends it anything: documents, questions and keys go to the API alone."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dragon_cli import main as dragonctl
from dragon_cli.stack import Stack
from edge_daemon import main as dragon_edge
from tests.chart.helm import CHART
from tests.fakes.served_api import ServedApi, served_api
from tests.servers.listener import Listener
from tests.unit.runtime.test_outgoing import environment_of

KEY = "a key that is long enough"


@pytest.fixture
async def api() -> AsyncIterator[ServedApi]:
    async with served_api(key=KEY) as api:
        yield api


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """What every variable names."""
    with Listener() as listener:
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        yield listener


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_no_command_of_dragonctl_sends_a_proxy_anything(
    api: ServedApi, proxy: Listener, tmp_path: Path, scheme: str
) -> None:
    note, key_file = tmp_path / "note.txt", tmp_path / "key"
    note.write_text("The code of the garage gate is 4711.")
    key_file.write_text(KEY)
    stack = Stack(tmp_path / "stack")
    stack.folder.mkdir()
    stack.plan_path.write_text(json.dumps({"api_url": api.url, "rtt_ms": None, "commands": {}}))
    environment = {
        **environment_of(proxy, scheme=scheme),
        "DRAGONCTL_URL": api.url,
        "DRAGONCTL_API_KEY_FILE": str(key_file),
        "DRAGONCTL_FOLDER": str(stack.folder),
    }

    async def run(*arguments: str) -> str:
        invoke = lambda: CliRunner().invoke(dragonctl.app, list(arguments), env=environment)  # noqa: E731
        result = await asyncio.to_thread(invoke)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.output

    assert "note.txt" in await run("documents", "add", str(note))
    (document_id,) = [row["id"] for row in json.loads(await run("documents", "list", "--json"))]
    assert "note.txt" in await run("documents", "show", document_id)
    await run("documents", "search", "the code of the gate")
    assert "Hello there." in await run("ask", "What is the code?")
    await run("documents", "delete", document_id)
    assert json.loads(await run("status", "--json"))["api_url"] == api.url
    await run("doctor")
    assert proxy.received == []


async def test_no_command_of_a_device_sends_a_proxy_anything(api: ServedApi, proxy: Listener, tmp_path: Path) -> None:
    environment = {
        **environment_of(proxy),
        "DRAGON_DEVICE": "d1",
        "DRAGON_DATA_FOLDER": str(tmp_path / "data"),
        "DRAGON_API__PORT": str(api.port),
        "DRAGON_BROKER__PORT": str(api.port),
    }

    async def run(*arguments: str) -> str:
        invoke = lambda: CliRunner().invoke(dragon_edge.app, list(arguments), env=environment)  # noqa: E731
        return (await asyncio.to_thread(invoke)).output

    assert "daemon       ready" in await run("status")
    assert f"127.0.0.1:{api.port} answers, without TLS" in await run("check")
    assert json.loads(await run("diagnose"))["status"]["daemon"]["status"] == "ready"
    assert "stop it first" in await run("reset", "--yes")
    assert proxy.received == []


async def test_the_test_of_a_release_sends_a_proxy_nothing(api: ServedApi, proxy: Listener, tmp_path: Path) -> None:
    environment = {**os.environ, **environment_of(proxy), "DEVICE_URL": api.url}
    script = f"import sys; sys.path.insert(0, {str(CHART / 'files')!r}); import ask; ask.require_ready()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert (process.returncode, proxy.received) == (0, []), said
