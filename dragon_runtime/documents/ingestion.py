"""Adding documents: kept on disk first, then split, embedded and stored one by one, and resumed after a crash."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, takewhile
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from dragon_core.errors import DocumentError, DragonError, StoreError, shown
from dragon_runtime.documents.registry import DocumentRegistry
from dragon_runtime.documents.service import MAX_NAME_CHARACTERS, Added, DocumentPage, IngestionState, StoredDocument
from dragon_runtime.documents.text import MEDIA_TYPES, document_id, media_type_of, passages_of, text_of
from dragon_runtime.interfaces import Embedder, Passage
from dragon_runtime.process.tasks import end_tasks, wait_at_most

logger = logging.getLogger(__name__)

BATCH_PASSAGES = 16
RETRY_SECONDS = 5.0
Result = TypeVar("Result")


class PassageStore(Protocol):
    """Where passages go; `MilvusStore` is one."""

    async def put(
        self, document_id: str, *, first: int, texts: Sequence[str], vectors: NDArray[np.float32]
    ) -> None: ...
    async def flush(self) -> None: ...
    async def delete(self, document_id: str) -> None: ...
    async def retrieve(self, query: str, *, num_passages: int) -> list[Passage]: ...


class Ingestion:
    """The documents of one end; see `DocumentService`. Used inside `async with`, which runs the work."""

    def __init__(self, registry: DocumentRegistry, store: PassageStore, embedder: Embedder) -> None:
        self._registry, self._store, self._embedder = registry, store, embedder
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="documents")
        self._progress: dict[str, tuple[int, int | None]] = {}
        self._problems: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self.num_stored = 0
        """Passages stored since the start."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work(), name="ingestion")
        return self

    async def __aexit__(self, *error: object) -> None:
        self._is_stopping = True
        await end_tasks([] if self._task is None else [self._task])
        self._executor.shutdown()

    # -- what the document service offers ---------------------------------------------------------------------------

    async def add(self, content: bytes, *, name: str, media_type: str) -> Added:
        """Take a document; when this returns it survives a crash. See `DocumentService`."""
        name, media_type = shown(name, max_characters=MAX_NAME_CHARACTERS), shown(media_type)
        if not content:
            raise DocumentError(f"{name}: the document is empty")
        kind = media_type_of(name, content, given=media_type)
        key = await asyncio.to_thread(document_id, content)
        found = await self.get(key)
        if found is not None and found.state is not IngestionState.FAILED:
            return Added(found, is_new=False)
        document = StoredDocument(
            document_id=key,
            name=name,
            media_type=kind,
            size_bytes=len(content),
            added_at=time.time(),
            state=IngestionState.QUEUED,
        )
        await self._on_disk(lambda: self._registry.add(document, content))
        self._wake.set()
        return Added(document, is_new=True)

    async def page(self, *, after: str | None, limit: int) -> DocumentPage:
        """Documents in the order in which they were added; see `DocumentService`."""
        found = await self._on_disk(lambda: self._registry.page(after=after, limit=limit + 1))
        page = tuple(self._with_progress(document) for document in found[:limit])
        return DocumentPage(page, page[-1].document_id if len(found) > limit else None)

    async def get(self, document_id: str) -> StoredDocument | None:
        """One document with its progress."""
        found = await self._on_disk(lambda: self._registry.get(document_id))
        return None if found is None else self._with_progress(found)

    async def delete(self, document_id: str) -> bool:
        """Remove a document and its passages; false when there is none.

        Raises:
            StoreError: the passages are still there; they are removed as soon as the store allows.
        """
        if await self.get(document_id) is None:
            return False
        await self._on_disk(lambda: self._registry.mark_deleted(document_id))
        try:
            await self._remove(document_id)
        except StoreError:
            self._try_again_later()
            raise
        return True

    async def search(self, query: str, *, num_passages: int) -> tuple[Passage, ...]:
        """The most relevant passages first."""
        return tuple(await self._store.retrieve(query, num_passages=num_passages))

    async def wait_until_done(self) -> None:
        """Return when nothing waits any more."""
        async with self._changed:
            while await self._on_disk(self._registry.waiting):
                await self._changed.wait()

    async def wait_for_change(self, seconds: float) -> None:
        """Return when a document is done or has failed, at the latest after so many seconds."""
        await wait_at_most(self._next_change(), seconds)

    async def _next_change(self) -> None:
        async with self._changed:
            await self._changed.wait()

    async def count_waiting(self) -> int:
        """Documents that are not done."""
        return len(await self._on_disk(self._registry.waiting))

    def _with_progress(self, document: StoredDocument) -> StoredDocument:
        if document.state not in (IngestionState.QUEUED, IngestionState.RUNNING):
            return document
        progress = self._progress.get(document.document_id)
        if progress is None:
            return dataclasses.replace(document, error=self._problems.get(document.document_id))
        return dataclasses.replace(
            document, state=IngestionState.RUNNING, num_passages_done=progress[0], num_passages=progress[1]
        )

    # -- the work -----------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            try:
                for deleted in await self._on_disk(self._registry.deleted):
                    await self._remove(deleted)
                for waiting in await self._on_disk(self._registry.waiting):
                    await self._ingest(waiting)
            except StoreError as error:
                logger.warning("documents wait: %s", error)
                self._try_again_later()
            await self._wake.wait()

    def _try_again_later(self) -> None:
        asyncio.get_running_loop().call_later(RETRY_SECONDS, self._wake.set)

    async def _ingest(self, key: str) -> None:
        """Split, embed and store one document.

        Raises:
            StoreError: what became of it cannot be written down; it still waits.
        """
        try:
            async with self._lock:
                document = await self._on_disk(lambda: self._registry.get(key))
                content = await self._on_disk(lambda: self._registry.content(key))
                if document is None or content is None:
                    return
                num_passages = await self._store_passages(document, content)
                await self._on_disk(lambda: self._registry.finish(key, num_passages=num_passages))
            self._problems.pop(key, None)
        except StoreError as error:
            # The content is kept: once there is room or the store is back it goes on.
            logger.warning("document %s waits: %s", key, error)
            self._problems[key] = shown(f"it waits: {error}")
            self._try_again_later()
        except DragonError as error:
            await self._fail(key, str(error))
        except Exception:
            logger.exception("document %s met a defect", key)
            await self._fail(key, "something unexpected went wrong with it; the log says what")
        finally:
            self._progress.pop(key, None)
            async with self._changed:
                self._changed.notify_all()

    async def _fail(self, key: str, reason: str) -> None:
        reason = shown(reason)
        logger.warning("document %s cannot be ingested: %s", key, reason)
        await self._on_disk(lambda: self._registry.fail(key, reason))

    async def _store_passages(self, document: StoredDocument, content: bytes) -> int:
        self._progress[document.document_id] = (0, None)
        texts = await asyncio.to_thread(self._split, document, content)
        pending = iter(texts)
        num_done = 0
        while batch := list(islice(pending, BATCH_PASSAGES)):
            if await self.get(document.document_id) is None:
                break  # deleted meanwhile
            vectors = await self._embedder.embed(batch)
            await self._store.put(document.document_id, first=num_done, texts=batch, vectors=vectors)
            num_done += len(batch)
            self.num_stored += len(batch)
            self._progress[document.document_id] = (num_done, len(texts))
        await self._store.flush()
        return num_done

    def _split(self, document: StoredDocument, content: bytes) -> list[str]:
        text = text_of(content, name=document.name, media_type=document.media_type)
        passages = passages_of(text, media_type=document.media_type, num_tokens=self._embedder.num_tokens)
        return list(takewhile(lambda _: not self._is_stopping, passages))

    async def _remove(self, key: str) -> None:
        async with self._lock:
            await self._store.delete(key)
            # Before it is forgotten: what is not flushed can be lost when the disk is full or the power fails.
            await self._store.flush()
            await self._on_disk(lambda: self._registry.forget(key))

    async def _on_disk(self, act: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, act)


@dataclasses.dataclass(frozen=True, slots=True)
class FolderReport:
    """What became of the files of a folder."""

    num_added: int
    num_known: int
    skipped: tuple[tuple[Path, str], ...]


async def add_folder(ingestion: Ingestion, folder: Path) -> FolderReport:
    """Add every readable document below `folder`.

    Raises:
        DocumentError: there is no such folder.
    """
    num_added = num_known = 0
    skipped: list[tuple[Path, str]] = []
    for path in await asyncio.to_thread(_document_files, folder):
        try:
            content = await asyncio.to_thread(path.read_bytes)
            added = await ingestion.add(content, name=path.name, media_type="")
        except (OSError, DocumentError) as error:
            skipped.append((path, str(error)))
            continue
        num_added += added.is_new
        num_known += not added.is_new
    return FolderReport(num_added, num_known, tuple(skipped))


def _document_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DocumentError(f"{folder} is no folder")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in MEDIA_TYPES and path.is_file())
