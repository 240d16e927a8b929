"""Loads public documents into the store once, and ends: `dragon-cloud documents add`."""

import asyncio
import logging
import re
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NewType
from urllib.parse import unquote, urlsplit

from cloud_peer.parts import Parts
from cloud_peer.settings import CloudSettings
from dragon_core.errors import DocumentError, DragonError, StoreError
from dragon_runtime.documents.ingestion import Ingestion
from dragon_runtime.documents.registry import DocumentRegistry
from dragon_runtime.documents.service import IngestionState
from dragon_runtime.documents.sources import FoundDocument, SkippedDocument, documents_in
from dragon_runtime.models.fetching import ProgressLog, Request, fetch
from dragon_runtime.redaction import redacted

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 10.0
LOOK_SECONDS = 1.0
MAX_DOWNLOAD_BYTES = 4 << 30
MAX_WAITING = 64
"""Documents whose content waits on this machine's disk at once; the next ones are read when there are fewer."""
FRAGMENT = re.compile(r"sha256=(?P<digest>[0-9a-f]{64})")
Source = NewType("Source", str)
"""A folder, a file or archive, or an http(s) address of one, with `#sha256=DIGEST` or without."""


@dataclass(slots=True)
class _Count:
    """Result for one source. `keys`: of the documents that can be found when all is done."""

    keys: set[str] = field(default_factory=set)
    problem: str = ""


def request_of(source: str) -> Request | None:
    """What to fetch, or None for a path.

    Raises:
        DocumentError: an address that is not one of http(s), or a fragment that is no digest.
    """
    if "://" not in source:
        return None
    url, _, fragment = source.partition("#")
    if urlsplit(url).scheme not in ("http", "https"):
        raise DocumentError(f"{redacted(source)}: use a folder, a file, or an http(s) address")
    found = FRAGMENT.fullmatch(fragment)
    if fragment and found is None:
        raise DocumentError(f"{redacted(source)}: after # comes sha256= and 64 hexadecimal digits in lower case")
    return Request(url=url, sha256=found["digest"] if found else None, max_bytes=MAX_DOWNLOAD_BYTES)


async def load(
    settings: CloudSettings, stopped: asyncio.Event, *, sources: Sequence[Source], timeout_seconds: float
) -> None:
    """Add the documents of all sources; returns when they can be found, or when told to stop.

    `timeout_seconds`: how long servers may take to come up, and the store may take nothing.

    Raises:
        DragonError: a source that cannot be read or has no document, after those of the others were added.
    """
    requests = {source: request_of(source) for source in sources}
    async with AsyncExitStack() as stack:
        parts = Parts(settings, stack, stopped, timeout_seconds=timeout_seconds)
        embedder = await parts.embedder()
        store = None if embedder is None else await parts.store(embedder)
        if embedder is None or store is None:
            raise StoreError("stopped before the servers came up")
        folder = settings.data_folder
        if settings.store.uri is not None:
            # What a server holds only it knows: everything is written to it again, which changes nothing.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dragon-documents-")))
        registry = DocumentRegistry(folder / "documents.sqlite")
        stack.callback(registry.close)
        ingestion = await stack.enter_async_context(Ingestion(registry, store, embedder))
        loader = _Loader(ingestion, stopped, timeout_seconds)
        problems = [problem for source, request in requests.items() if (problem := await loader.add(source, request))]
        if problems:
            raise DocumentError("; ".join(problems))


class _Loader:
    def __init__(self, ingestion: Ingestion, stopped: asyncio.Event, timeout_seconds: float) -> None:
        self._ingestion, self._stopped, self._timeout_seconds = ingestion, stopped, timeout_seconds

    async def add(self, source: Source, request: Request | None) -> str:
        """Add the documents of one source and wait until they can be found; returns what is wrong with it."""
        shown = str(source) if request is None else request.shown_url
        count = _Count()
        try:
            if request is None:
                await self._add_path(Path(source), count)
            else:
                await self._add_address(request, count)
        except DocumentError as error:
            count.problem = str(error)
        except StoreError:
            raise
        except DragonError as error:
            return str(error)
        await self._wait_until_fewer(1)
        failures = [said for key in count.keys if (said := await self._failure(key)) is not None]
        num_done = len(count.keys) - len(failures)
        logger.info("%s: %d documents can be found", shown, num_done)
        if num_done or count.problem:
            return count.problem
        return f"{shown}: there is no document in it that can be read" + (f" ({failures[0]})" if failures else "")

    async def _add_address(self, request: Request, count: _Count) -> None:
        name = PurePosixPath(unquote(urlsplit(request.url).path)).name or "document"
        with tempfile.TemporaryDirectory(prefix="dragon-documents-") as folder:
            path = Path(folder) / "fetched"
            fetched = await fetch(request, path, progress=ProgressLog(request.shown_url))
            await self._add_path(path, count, name=name, media_type=fetched.media_type)

    async def _add_path(self, path: Path, count: _Count, *, name: str | None = None, media_type: str = "") -> None:
        found = documents_in(path, name=name, media_type=media_type)
        while not self._stopped.is_set():
            document = await asyncio.to_thread(next, found, None)
            match document:
                case None:
                    return
                case SkippedDocument(skipped, reason):
                    logger.warning("skipped %s: %s", skipped, reason)
                case FoundDocument(read, content, kind):
                    await self._wait_until_fewer(MAX_WAITING)
                    await self._add(read, content, kind, count)
        raise StoreError("stopped before all documents were added")

    async def _add(self, name: str, content: bytes, media_type: str, count: _Count) -> None:
        try:
            added = await self._ingestion.add(content, name=name, media_type=media_type)
        except DocumentError as error:
            logger.warning("skipped %s: %s", name, error)
            return
        count.keys.add(added.document.document_id)

    async def _failure(self, key: str) -> str | None:
        document = await self._ingestion.get(key)
        if document is None:
            return "it was deleted meanwhile"
        return document.error if document.state is IngestionState.FAILED else None

    async def _wait_until_fewer(self, limit: int) -> None:
        """Return when fewer than `limit` documents wait.

        Raises:
            StoreError: the store takes nothing any more, or we are told to stop.
        """
        loop = asyncio.get_running_loop()
        seen, moved_at, said_at = self._ingestion.num_stored, loop.time(), loop.time()
        while (num_waiting := await self._ingestion.count_waiting()) >= limit:
            if self._stopped.is_set():
                raise StoreError(f"stopped while {num_waiting} documents wait")
            now = loop.time()
            if self._ingestion.num_stored != seen:
                seen, moved_at = self._ingestion.num_stored, now
            if now - moved_at > self._timeout_seconds:
                raise StoreError(
                    f"the store took nothing for {self._timeout_seconds:g} s; {num_waiting} documents wait"
                )
            if now - said_at > PROGRESS_SECONDS:
                said_at = now
                logger.info("%d passages are stored, %d documents wait", seen, num_waiting)
            await self._ingestion.wait_for_change(LOOK_SECONDS)
