"""Checks of a device without its daemon: whether the daemon could start, and a diagnostic bundle for support."""

import asyncio
import contextlib
import datetime as dt
import importlib.metadata
import json
import platform
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from dragon_core.errors import DragonError, OurError, SettingsError
from dragon_runtime.channel.connection import tls_context
from dragon_runtime.engines.llama.model import require_gguf
from dragon_runtime.models import bundled_model
from dragon_runtime.models.resolving import require_digest
from dragon_runtime.outgoing import direct_client
from dragon_runtime.redaction import all_redacted, redacted
from dragon_runtime.settings import BrokerSettings, ModelSettings
from edge_daemon.fleet.live import daemon_version
from edge_daemon.fleet.reachability import require_tls_server
from edge_daemon.fleet.twin import FILE as TWIN_FILE
from edge_daemon.fleet.twin import MODELS, Twin
from edge_daemon.identity import IdentityStore
from edge_daemon.settings import EdgeSettings

API_SECONDS = 5.0
MIN_FREE_BYTES = 100 * 1024 * 1024
RENEWAL_OVERDUE = 0.8
"""Fraction of a certificate's lifetime after which it should have been renewed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    what: str
    is_good: bool
    message: str


async def check(settings: EdgeSettings) -> list[Finding]:
    """Check everything a start needs."""
    effective = Twin(settings).settings
    looks: list[tuple[str, Callable[[], Awaitable[str]]]] = [
        ("data folder", lambda: asyncio.to_thread(_folder, settings.data_folder)),
        ("model", lambda: asyncio.to_thread(_model, effective.model, settings.data_folder / MODELS)),
        ("certificate", lambda: asyncio.to_thread(_certificate, settings)),
        ("broker", lambda: _broker(settings.broker)),
        ("api", lambda: asyncio.to_thread(_api_key, settings)),
    ]
    findings = [Finding("settings", True, f"device {settings.device} of {settings.namespace}/{settings.deployment}")]
    for what, look in looks:
        try:
            findings.append(Finding(what, True, redacted(await look())))
        except (DragonError, OSError) as error:
            findings.append(Finding(what, False, redacted(str(error))))
    return findings


async def status(settings: EdgeSettings) -> dict[str, Any]:
    """The current state of the daemon, the identity and the twin."""
    store = IdentityStore(settings.data_folder)
    twin = Twin(settings)
    found: dict[str, Any] = {
        "device": settings.device,
        "namespace": settings.namespace,
        "deployment": settings.deployment,
        "broker": f"{settings.broker.host}:{settings.broker.port}",
        "certificate_expires": None,
        "configuration": {"observed": twin.observed, "applied": twin.applied, "problem": twin.problem},
        "daemon": await _readiness(settings),
    }
    try:
        identity = store.load()
        if identity is not None:
            found["certificate_expires"] = identity.certificate.expires.isoformat(timespec="seconds")
    except OurError as error:
        found["identity_problem"] = str(error)
    shown: dict[str, Any] = all_redacted(found)
    return shown


async def diagnosis(settings: EdgeSettings) -> dict[str, Any]:
    """All of this in one bundle, without the secrets of the settings. Files are named, but never opened."""
    usage = shutil.disk_usage(_existing(settings.data_folder))
    found = {
        "made": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "version": daemon_version(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": _packages(),
        "disk": {"total": usage.total, "free": usage.free},
        "settings": json.loads(settings.model_dump_json()),
        "twin": _twin(settings.data_folder),
        "status": await status(settings),
        "check": [
            {"what": finding.what, "good": finding.is_good, "message": finding.message}
            for finding in await check(settings)
        ],
        "metrics": await _metrics(settings),
    }
    shown: dict[str, Any] = all_redacted(found)
    return shown


async def is_running(settings: EdgeSettings) -> bool:
    """Whether a daemon answers at the API's address."""
    return await _get(settings, "/healthz") is not None


def _folder(folder: Path) -> str:
    existing = _existing(folder)
    usage = shutil.disk_usage(existing)
    if usage.free < MIN_FREE_BYTES:
        raise OurError(f"{folder} has {usage.free // 1024**2} MiB left; free disk space for documents and models")
    probe = existing / f".dragon-edge-check-{time.monotonic_ns()}"
    probe.touch()
    probe.unlink()
    return f"{folder}, {usage.free // 1024**3} GiB free"


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def _model(settings: ModelSettings, folder: Path) -> str:
    if settings.path is not None:
        require_gguf(settings.path)
        if settings.sha256 is not None:
            require_digest(settings.path, settings.sha256)
        return str(settings.path)
    if settings.url is not None and settings.sha256 is not None:
        target = folder / f"{settings.sha256}.gguf"
        if not target.exists():
            return f"will be downloaded from {settings.url}"
        require_digest(target, settings.sha256)
        return str(target)
    return str(bundled_model())


def _certificate(settings: EdgeSettings) -> str:
    identity = IdentityStore(settings.data_folder).load()
    if identity is None:
        return "not enrolled: run `dragon-edge join TOKEN` if the broker requires a certificate"
    now = dt.datetime.now(dt.UTC)
    certificate = identity.certificate
    if now < certificate.begins:
        raise OurError(
            f"the certificate is valid from {certificate.begins:%Y-%m-%d %H:%M} UTC: set this device's clock"
        )
    if certificate.is_past(1.0, now):
        raise OurError(
            f"the certificate expired at {certificate.expires:%Y-%m-%d %H:%M} UTC: enrol again with a new join token"
        )
    if certificate.is_past(RENEWAL_OVERDUE, now):
        raise OurError(
            f"the certificate expires at {certificate.expires:%Y-%m-%d %H:%M} UTC and was not renewed: "
            "check whether the daemon runs and the operator answers"
        )
    return f"until {certificate.expires:%Y-%m-%d}"


async def _broker(settings: BrokerSettings) -> str:
    where = f"{settings.host}:{settings.port}"
    if (context := tls_context(settings)) is None:
        try:
            async with asyncio.timeout(API_SECONDS):
                _, writer = await asyncio.open_connection(settings.host, settings.port)
        except (OSError, TimeoutError) as error:
            raise OurError(f"{where} cannot be reached: {error or 'it does not answer'}") from error
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return f"{where} answers, without TLS"
    await require_tls_server(settings.host, settings.port, context)
    return f"{where} answers, and its certificate is valid"


def _api_key(settings: EdgeSettings) -> str:
    key = settings.api.api_key()
    return f"{settings.api.host}:{settings.api.port}, {'without a' if key is None else 'with a'} key"


async def _readiness(settings: EdgeSettings) -> dict[str, Any] | None:
    response = await _get(settings, "/readyz")
    with contextlib.suppress(ValueError):
        return None if response is None else dict(response.json())
    return {"status": "something else listens at the API's address"}


async def _metrics(settings: EdgeSettings) -> list[str] | None:
    response = await _get(settings, "/metrics")
    if response is None:
        return None
    return [line for line in response.text.splitlines() if line.startswith("dragon_edge_") and "_bucket" not in line]


async def _get(settings: EdgeSettings, path: str) -> httpx.Response | None:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.api.host, settings.api.host)  # noqa: S104 - replaced
    host = f"[{host}]" if ":" in host else host
    headers = {}
    with contextlib.suppress(SettingsError):
        key = settings.api.api_key()
        headers = {} if key is None else {"Authorization": f"Bearer {key.get_secret_value()}"}
    try:
        async with direct_client(timeout=API_SECONDS) as client:
            return await client.get(f"http://{host}:{settings.api.port}{path}", headers=headers)
    except httpx.HTTPError:
        return None


def _twin(folder: Path) -> Any:
    try:
        return json.loads((folder / TWIN_FILE).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"


def _packages() -> dict[str, str]:
    wanted = ("llama-cpp-python", "milvus-lite", "aiomqtt", "paho-mqtt", "cryptography", "numpy", "fastapi")
    found = {}
    for name in wanted:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
