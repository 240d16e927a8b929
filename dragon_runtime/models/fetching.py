"""Getting a file from an address: written beside its place, checked, then renamed. A half of a file is never seen.

Every failure has one reason of a finite list, which a caller can show and act on.
"""

import enum
import errno
import hashlib
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import anyio.to_thread
import httpx

from dragon_core.errors import OurError, SettingsError
from dragon_runtime.models.oci_registry import SCHEME, RegistryLogin, blob_address
from dragon_runtime.outgoing import download_client, proxy_advice
from dragon_runtime.redaction import redacted
from dragon_runtime.settings.groups import may_carry_secrets

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
SILENT_SECONDS = 60.0
"""A server that sends nothing for so long is given up."""
STALE_SECONDS = 600.0
"""A part that was not written to for so long belongs to nobody any more."""
PROGRESS_SECONDS = 5.0
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

Progress = Callable[[int, int | None], None]
"""(bytes so far, bytes in all if known)"""


class FetchReason(enum.StrEnum):
    """Why a file could not be had."""

    UNREACHABLE = "Unreachable"
    """Nobody answers at the address, or the answer broke off."""
    NOT_FOUND = "NotFound"
    REFUSED = "Refused"
    """The server wants another token, or a token must not be sent there."""
    DIGEST_MISMATCH = "DigestMismatch"
    VOLUME_FULL = "VolumeFull"
    NOT_WRITABLE = "NotWritable"
    TOO_LARGE = "TooLarge"


class FetchError(OurError):
    """A file that could not be had, and why."""

    def __init__(self, message: str, *, reason: FetchReason) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is fetched. `token` is sent as bearer token, over TLS or to this machine only; `login` when asked for."""

    url: str
    sha256: str | None = None
    token: str | None = None
    max_bytes: int | None = None
    login: RegistryLogin | None = None

    @classmethod
    def of(cls, url: str, sha256: str, *, token: str | None = None) -> Self:
        """Of a file that is known by its digest, at an address or in an OCI registry.

        Raises:
            OurError: an `oci://` address or its credentials have another form.
        """
        if url.startswith(SCHEME):
            return cls(url=blob_address(url, sha256), sha256=sha256, login=RegistryLogin(token))
        return cls(url=url, sha256=sha256, token=token)

    @property
    def is_anonymous(self) -> bool:
        """Whether it is made without any credentials."""
        if self.login is not None:
            return self.login.is_anonymous
        return self.token is None and "X-Amz-Signature" not in httpx.URL(self.url).params

    @property
    def shown_url(self) -> str:
        """The address without what may be secret in it."""
        return redacted(self.url)

    def headers(self) -> Mapping[str, str]:
        """The headers to send.

        Raises:
            FetchError: a token would cross the network in the clear.
        """
        if self.token is None:
            return {}
        url = httpx.URL(self.url)
        if not may_carry_secrets(url.scheme, url.host):
            raise FetchError(
                f"a token is not sent to {self.shown_url}: use an https address", reason=FetchReason.REFUSED
            )
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched: its size, and the type the server says it has."""

    num_bytes: int
    media_type: str


async def fetch(request: Request, target: Path, *, progress: Progress | None = None) -> Fetched:
    """Fetch into `target`, which is there only when everything is right.

    Raises:
        FetchError: it is not; `target` is as it was before.
    """
    part = target.with_name(f"{target.name}.{socket.gethostname()}-{os.getpid()}.part")
    with _translated(request, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_parts(target.parent)
        try:
            fetched = await _download(request, part, progress)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return fetched


async def _download(request: Request, part: Path, progress: Progress | None) -> Fetched:
    found = hashlib.sha256()
    headers = request.headers()
    async with (
        download_client(request.url, timeout=SILENT_SECONDS) as client,
        client.stream("GET", request.url, headers=headers, auth=request.login) as reply,
    ):
        _require_success(request, reply.status_code)
        length = reply.headers.get("content-length", "")
        total = int(length) if length.isdecimal() and "content-encoding" not in reply.headers else None
        _require_room(request, part.parent, total)
        with part.open("wb") as file:
            num_bytes = 0
            async for chunk in reply.aiter_bytes(CHUNK_BYTES):
                num_bytes += len(chunk)
                if request.max_bytes is not None and num_bytes > request.max_bytes:
                    raise _too_large(request)
                await anyio.to_thread.run_sync(file.write, chunk)
                found.update(chunk)
                if progress is not None:
                    progress(num_bytes, total)
            await anyio.to_thread.run_sync(_write_out, file.fileno())
    if request.sha256 is not None and found.hexdigest() != request.sha256:
        raise FetchError(
            f"what is at {request.shown_url} has sha256 {found.hexdigest()}, not {request.sha256}",
            reason=FetchReason.DIGEST_MISMATCH,
        )
    return Fetched(num_bytes, reply.headers.get("content-type", ""))


def _write_out(descriptor: int) -> None:
    os.fsync(descriptor)


def _require_success(request: Request, status: int) -> None:
    if httpx.codes.is_success(status):
        return
    match status:
        case 401 | 403:
            reason = FetchReason.REFUSED
            advice = " (a token that may read it is needed)" if request.is_anonymous else " (the token may not read it)"
        case 404 | 410:
            reason, advice = FetchReason.NOT_FOUND, " (there is no such file)"
        case _:
            reason, advice = FetchReason.UNREACHABLE, ""
    raise FetchError(f"{request.shown_url} cannot be fetched: HTTP {status}{advice}", reason=reason)


def _require_room(request: Request, folder: Path, total: int | None) -> None:
    if total is None:
        return
    if request.max_bytes is not None and total > request.max_bytes:
        raise _too_large(request)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise FetchError(
            f"{folder} is full: {request.shown_url} has {total} bytes, {free} are free; make the volume larger",
            reason=FetchReason.VOLUME_FULL,
        )


def _too_large(request: Request) -> FetchError:
    return FetchError(
        f"{request.shown_url} is larger than the {request.max_bytes} bytes that are accepted",
        reason=FetchReason.TOO_LARGE,
    )


def _remove_stale_parts(folder: Path) -> None:
    """A container that was killed leaves its part behind, and the next one has another name."""
    for part in folder.glob("*.part"):
        if time.time() - part.lstat().st_mtime > STALE_SECONDS:
            part.unlink(missing_ok=True)


@contextmanager
def _translated(request: Request, target: Path) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, SettingsError) as error:
        # A message about an address that is none repeats parts of it.
        said = "it is no valid address" if isinstance(error, httpx.InvalidURL) else str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
            said += proxy_advice(request.url)
        raise FetchError(f"{request.shown_url} cannot be fetched: {said}", reason=FetchReason.UNREACHABLE) from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise FetchError(
                f"{target.parent} is full ({error.strerror}): make the volume larger", reason=FetchReason.VOLUME_FULL
            ) from error
        raise FetchError(
            f"{target.parent} cannot be written: {error.strerror or error}", reason=FetchReason.NOT_WRITABLE
        ) from error


class ProgressLog:
    """Writes a line of progress to the log now and then."""

    def __init__(self, what: str) -> None:
        self._what, self._next = what, time.monotonic() + PROGRESS_SECONDS

    def __call__(self, num_bytes: int, total: int | None) -> None:
        now = time.monotonic()
        if now < self._next and num_bytes != total:
            return
        self._next = now + PROGRESS_SECONDS
        part = "" if not total else f" of {total / 1e6:.1f} ({num_bytes / total:.0%})"
        logger.info("%s: %.1f MB%s", self._what, num_bytes / 1e6, part)
