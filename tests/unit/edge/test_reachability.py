"""Why a broker cannot be reached, in words."""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dragon_core.errors import OurError, RetryableError
from dragon_runtime.certificates import CertificateAuthority
from dragon_runtime.servers.mosquitto import free_port
from edge_daemon.fleet.reachability import require_tls_server

AUTHORITY = CertificateAuthority.create("test")


@asynccontextmanager
async def served(folder: Path, *, hosts: list[str], valid: dt.timedelta) -> AsyncIterator[int]:
    """A TLS server; yields its port."""
    issued = AUTHORITY.issue_server("broker", hosts=hosts, valid=valid)
    (folder / "server.pem").write_bytes(issued.certificate + (issued.key or b""))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def trust(authority: CertificateAuthority = AUTHORITY) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.certificate.decode())


async def test_the_right_server_is_reached(tmp_path: Path) -> None:
    async with served(tmp_path, hosts=["localhost"], valid=dt.timedelta(days=1)) as port:
        await require_tls_server("localhost", port, trust())


async def test_a_wrong_clock_is_told_from_a_wrong_server(tmp_path: Path) -> None:
    async with served(tmp_path, hosts=["localhost"], valid=dt.timedelta(minutes=-1)) as port:
        with pytest.raises(OurError, match=r"2001-09-09 01:46:40 UTC.*set the clock"):
            await require_tls_server("localhost", port, trust(), clock=lambda: 1e9)
    async with served(tmp_path, hosts=["elsewhere"], valid=dt.timedelta(days=1)) as port:
        with pytest.raises(OurError, match="cannot be trusted"):
            await require_tls_server("localhost", port, trust())
    async with served(tmp_path, hosts=["localhost"], valid=dt.timedelta(days=1)) as port:
        with pytest.raises(OurError, match="cannot be trusted"):
            await require_tls_server("localhost", port, trust(CertificateAuthority.create("other")))


async def test_nobody_there_is_named() -> None:
    with pytest.raises(RetryableError, match="cannot be reached"):
        await require_tls_server("127.0.0.1", free_port(), trust())
    with pytest.raises(RetryableError, match="no such host"):
        await require_tls_server("nowhere.invalid", 8883, trust())
