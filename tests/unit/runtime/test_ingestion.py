"""Adding documents with a store that fails: what waits, what fails, what is removed; one never stops another."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dragon_core.errors import StoreError, StoreFullError
from dragon_runtime.documents.ingestion import Ingestion
from dragon_runtime.documents.registry import DocumentRegistry
from dragon_runtime.documents.service import IngestionState, StoredDocument
from dragon_runtime.documents.text import BLOCK_CHARACTERS, PASSAGE_TOKENS, passages_of
from dragon_runtime.interfaces import Passage
from tests.fakes.engine import FlatEmbedder

pytestmark = pytest.mark.timeout(30)


class Embedder(FlatEmbedder):
    """Meets a defect in texts that say so."""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if any("defect" in text for text in texts):
            raise ZeroDivisionError("a defect")
        return await super().embed(texts)


class Shelf:
    """A store in memory. `failure` is raised by every write; `is_open` holds writes back while it is not set."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}
        self.failure: StoreError | None = None
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.is_asked = asyncio.Event()
        self.num_flushes = 0

    async def put(self, document_id: str, *, first: int, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        await self._write()
        shelf = self.texts.setdefault(document_id, [])
        shelf[first:] = texts

    async def flush(self) -> None:
        await self._write()
        self.num_flushes += 1

    async def delete(self, document_id: str) -> None:
        await self._write()
        self.texts.pop(document_id, None)

    async def retrieve(self, query: str, *, num_passages: int) -> list[Passage]:
        return []

    async def _write(self) -> None:
        self.is_asked.set()
        await self.is_open.wait()
        if self.failure is not None:
            raise self.failure


@asynccontextmanager
async def ingesting(folder: Path) -> AsyncIterator[tuple[Ingestion, Shelf]]:
    registry, shelf = DocumentRegistry(folder / "documents.sqlite"), Shelf()
    try:
        async with Ingestion(registry, shelf, Embedder()) as ingestion:
            yield ingestion, shelf
    finally:
        registry.close()


async def state_of(ingestion: Ingestion, document: StoredDocument) -> tuple[IngestionState, str | None]:
    found = await ingestion.get(document.document_id)
    assert found is not None
    return found.state, found.error


async def add(ingestion: Ingestion, text: str) -> StoredDocument:
    return (await ingestion.add(text.encode(), name=f"{text[:8]}.txt", media_type="")).document


async def test_a_defect_fails_its_document_and_no_other(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as (ingestion, shelf):
        bad, good = await add(ingestion, "a defect"), await add(ingestion, "fine")
        await ingestion.wait_until_done()
        state, error = await state_of(ingestion, bad)
        assert (state, error) == (IngestionState.FAILED, "something unexpected went wrong with it; the log says what")
        assert await state_of(ingestion, good) == (IngestionState.DONE, None)
        assert shelf.texts == {good.document_id: ["fine"]}


async def test_what_the_store_cannot_take_waits_and_says_why(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as (ingestion, shelf):
        shelf.failure = StoreFullError("no room")
        first = await add(ingestion, "first")
        while (await state_of(ingestion, first))[1] is None:
            await shelf.is_asked.wait()
        assert await state_of(ingestion, first) == (IngestionState.QUEUED, "it waits: no room")
        assert await ingestion.count_waiting() == 1
        shelf.failure = None
        second = await add(ingestion, "second")  # which also has the first tried again
        await ingestion.wait_until_done()
        for document in (first, second):
            assert await state_of(ingestion, document) == (IngestionState.DONE, None)
        assert set(shelf.texts) == {first.document_id, second.document_id}


async def test_a_deletion_that_the_store_refuses_is_made_up_for(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as (ingestion, shelf):
        document = await add(ingestion, "private")
        await ingestion.wait_until_done()
        shelf.failure = StoreError("locked")
        with pytest.raises(StoreError, match="locked"):
            await ingestion.delete(document.document_id)
        assert await ingestion.get(document.document_id) is None
        assert document.document_id in shelf.texts
        shelf.failure = None
        await add(ingestion, "another")
        await ingestion.wait_until_done()
        assert document.document_id not in shelf.texts


async def test_a_deletion_is_flushed_before_it_is_forgotten(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as (ingestion, shelf):
        document = await add(ingestion, "private")
        await ingestion.wait_until_done()
        before = shelf.num_flushes
        assert await ingestion.delete(document.document_id)
        assert shelf.num_flushes == before + 1


async def test_a_document_added_again_while_it_is_deleted_is_there(tmp_path: Path) -> None:
    async with ingesting(tmp_path) as (ingestion, shelf):
        document = await add(ingestion, "wanted")
        await ingestion.wait_until_done()
        shelf.is_open.clear()
        shelf.is_asked.clear()
        blocking = asyncio.create_task(add(ingestion, "blocking"))
        await shelf.is_asked.wait()  # the worker holds the store while the rest queues behind it
        deleting = asyncio.create_task(ingestion.delete(document.document_id))
        while await ingestion.get(document.document_id) is not None:
            pass
        again = await ingestion.add(b"wanted", name="wanted.txt", media_type="")
        shelf.is_open.set()
        await asyncio.gather(blocking, deleting)
        await ingestion.wait_until_done()
        assert again.is_new
        assert await state_of(ingestion, document) == (IngestionState.DONE, None)
        assert shelf.texts[document.document_id] == ["wanted"]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 70_000,
        "deadbeef" * 20_000,
        " ".join(f"w{number}" for number in range(30_000)),
        "\n\n".join(" ".join(f"w{i}x{j}" for j in range(50)) for i in range(400)),
        "a" * BLOCK_CHARACTERS + " b",
    ],
)
def test_passages_of_a_long_text_are_bounded_and_lose_nothing(text: str) -> None:
    passages = list(passages_of(text, media_type="text/plain", num_tokens=lambda piece: len(piece.split())))
    assert max(map(len, passages)) <= 20 * PASSAGE_TOKENS
    assert "".join("".join(passages).split()) == "".join(text.split())
