"""Documents end to end: real embedding model, real store, and a process that is killed."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from dragon_core.errors import DocumentError, StoreError
from dragon_runtime.documents.ingestion import Ingestion, add_folder
from dragon_runtime.documents.registry import DocumentRegistry
from dragon_runtime.documents.service import IngestionState
from dragon_runtime.embedding.minilm import MiniLmEmbedder
from dragon_runtime.store.milvus import MilvusStore

pytestmark = pytest.mark.integration

DEADLINE = 60


@asynccontextmanager
async def documents(folder: Path) -> AsyncIterator[tuple[Ingestion, MilvusStore]]:
    embedder = await MiniLmEmbedder.load()
    store = await MilvusStore.open_folder(folder, embedder=embedder)
    registry = DocumentRegistry(folder / "documents.sqlite")
    try:
        async with Ingestion(registry, store, embedder) as ingestion:
            yield ingestion, store
    finally:
        registry.close()
        await store.close()
        embedder.close()


def listening_sockets() -> set[str]:
    """Local addresses of TCP sockets of this process that listen."""
    ours = {str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in ours}


async def test_the_embedder_is_the_published_model() -> None:
    embedder = await MiniLmEmbedder.load()
    texts = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."]
    together = await embedder.embed(texts)
    alone = np.concatenate([await embedder.embed([text]) for text in texts])
    embedder.close()
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    # As sentence-transformers gives it for this pair.
    assert together[0] @ together[1] == pytest.approx(0.7553, abs=1e-3)
    assert together[0] @ together[2] < 0.1


async def test_documents_are_added_found_and_deleted_without_a_port(tmp_path: Path) -> None:
    before = listening_sockets()
    async with documents(tmp_path) as (ingestion, store):
        added = await ingestion.add(b"Maria's locker has number 4711.", name="note.txt", media_type="")
        other = await ingestion.add(b"# Lisbon\n\nThe capital of Portugal.", name="lisbon.md", media_type="")
        await asyncio.wait_for(ingestion.wait_until_done(), DEADLINE)
        again = await ingestion.add(b"Maria's locker has number 4711.", name="copy.txt", media_type="")
        assert (added.is_new, again.is_new, again.document.state) == (True, False, IngestionState.DONE)
        found = await ingestion.search("Which locker?", num_passages=1)
        assert [passage.document_id for passage in found] == [added.document.document_id]
        assert await store.count() == 2
        assert await ingestion.delete(added.document.document_id)
        assert not await ingestion.delete(added.document.document_id)
        assert [p.document_id for p in await ingestion.search("Which locker?", num_passages=3)] == [
            other.document.document_id
        ]
        page = await ingestion.page(after=None, limit=10)
        assert [document.name for document in page.documents] == ["lisbon.md"]
        assert listening_sockets() == before


async def test_a_bad_document_fails_with_a_reason_and_can_be_replaced(tmp_path: Path) -> None:
    async with documents(tmp_path) as (ingestion, _):
        added = await ingestion.add(b"%PDF-1.4 broken", name="a.pdf", media_type="")
        await asyncio.wait_for(ingestion.wait_until_done(), DEADLINE)
        document = await ingestion.get(added.document.document_id)
        assert document is not None
        assert document.state is IngestionState.FAILED
        assert document.error is not None
        assert "a.pdf" in document.error
        with pytest.raises(DocumentError, match="empty"):
            await ingestion.add(b"", name="b.txt", media_type="")


async def test_a_store_is_used_by_one_process_and_survives_closing(tmp_path: Path) -> None:
    async with documents(tmp_path) as (ingestion, _):
        await ingestion.add(b"The code is 8812.", name="code.txt", media_type="")
        await asyncio.wait_for(ingestion.wait_until_done(), DEADLINE)
        embedder = await MiniLmEmbedder.load()
        with pytest.raises(StoreError, match="in use"):
            await MilvusStore.open_folder(tmp_path, embedder=embedder)
        embedder.close()
    async with documents(tmp_path) as (ingestion, store):
        assert await store.count() == 1
        assert [p.text for p in await ingestion.search("code", num_passages=1)] == ["The code is 8812."]


CHILD = """
import asyncio, sys
from pathlib import Path
from tests.integration.test_documents import documents

async def main() -> None:
    async with documents(Path(sys.argv[1])) as (ingestion, _):
        for number in range(60):
            text = " ".join(f"Fact {number}.{i}: box {number} holds {i} stones." for i in range(60))
            added = await ingestion.add(text.encode(), name=f"{number}.txt", media_type="")
            print(added.document.document_id, flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_no_acknowledged_document_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    assert child.stdout is not None
    acknowledged = [child.stdout.readline().strip() for _ in range(12)]
    os.kill(child.pid, signal.SIGKILL)
    acknowledged += child.stdout.read().split()
    child.wait()
    child.stdout.close()
    async with documents(tmp_path) as (ingestion, _):
        await asyncio.wait_for(ingestion.wait_until_done(), 2 * DEADLINE)
        for key in acknowledged:
            document = await ingestion.get(key)
            assert document is not None
            assert document.state is IngestionState.DONE
            number = document.name.removesuffix(".txt")
            found = await ingestion.search(f"What does box {number} hold?", num_passages=5)
            assert key in {passage.document_id for passage in found}


async def test_a_folder_is_added_once_and_says_what_it_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "public"
    folder.mkdir()
    (folder / "a.txt").write_text("Lisbon lies on the Tagus.")
    (folder / "b.pdf").write_bytes(b"no pdf")
    (folder / "c.bin").write_bytes(b"ignored")
    async with documents(tmp_path / "store") as (ingestion, _):
        first = await add_folder(ingestion, folder)
        second = await add_folder(ingestion, folder)
    assert (first.num_added, first.num_known, [path.name for path, _ in first.skipped]) == (1, 0, ["b.pdf"])
    assert (second.num_added, second.num_known) == (0, 1)
