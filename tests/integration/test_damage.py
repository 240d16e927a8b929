"""Files of an end that are damaged: a start that is refused in one line that says what to do, and nothing deleted."""

import asyncio
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dragon_core.errors import StoreError
from dragon_runtime.documents.registry import DocumentRegistry
from dragon_runtime.embedding.minilm import MiniLmEmbedder
from dragon_runtime.store.milvus import MilvusStore
from tests.integration.test_documents import documents
from tests.servers.daemon import Daemon

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with documents, as a daemon leaves it."""
    folder = tmp_path_factory.mktemp("whole") / "data"

    async def fill() -> None:
        async with documents(folder / "store") as (ingestion, _):
            for number in range(3):
                content = " ".join(f"Fact {number}.{i}: box {number} holds {i} stones." for i in range(20))
                await ingestion.add(content.encode(), name=f"{number}.txt", media_type="")
                await asyncio.wait_for(ingestion.wait_until_done(), 120)

    asyncio.run(fill())
    (folder / "store" / "documents.sqlite").rename(folder / "documents.sqlite")
    return folder


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "data"))


def contents(folder: Path) -> dict[str, str]:
    """Every file with the digest of what is in it."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "LOCK")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def one(folder: Path, pattern: str) -> Path:
    return min(folder.rglob(pattern))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path: Path) -> None:
    path.write_bytes(b"\x00" * path.stat().st_size)


STORE_DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("manifest.json", cut_short, "manifest.json"),
    ("manifest.json", overwrite, "manifest.json"),
    ("manifest.json", lambda path: path.write_text("[]"), "no JSON object"),
    ("manifest.json", lambda path: path.write_text('{"partitions": {"_default": 3}}'), "no partitions"),
    ("manifest.json", lambda path: path.unlink(), "is missing"),
    ("schema.json", cut_short, "schema.json"),
    ("schema.json", lambda path: path.unlink(), "is missing"),
    ("data/*.parquet", lambda path: path.unlink(), "No such file"),
    ("data/*.parquet", cut_short, "cut short"),
    ("data/*.parquet", overwrite, "overwritten"),
    ("data/*.parquet", lambda path: path.write_bytes(b""), "has 0 bytes"),
]


async def test_a_damaged_store_is_not_opened_and_nothing_is_deleted(whole: Path, tmp_path: Path) -> None:
    embedder = await MiniLmEmbedder.load()
    for number, (pattern, damage, told) in enumerate(STORE_DAMAGE):
        store = Path(shutil.copytree(whole / "store", tmp_path / f"store{number}"))
        damage(one(store, pattern))
        before = contents(store)
        with pytest.raises(StoreError) as caught:
            await MilvusStore.open_folder(store, embedder=embedder)
        for text in (told, str(store), "nothing was deleted", "Restore the folder from a copy"):
            assert text in str(caught.value), (pattern, told)
        assert contents(store) == before, (pattern, told)
    embedder.close()


async def test_a_store_that_is_whole_is_opened(whole: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(whole / "store", tmp_path / "store"))
    unborn = store / "milvus" / "collections" / "passages_of_a_start_that_was_killed"
    unborn.mkdir()
    async with documents(store) as (ingestion, opened):
        assert await opened.count() == 6
        assert await ingestion.search("What does box 1 hold?", num_passages=1)
    assert not unborn.exists()


def damage_page(path: Path) -> None:
    """Overwrite what lies behind the first page, where the rows are."""
    with path.open("r+b") as file:
        file.seek(4096 + 8)
        file.write(b"\xff" * 2000)


@pytest.mark.parametrize("damage", [overwrite, damage_page, cut_short])
def test_a_damaged_list_is_not_opened_and_nothing_is_deleted(damage: Callable[[Path], object], data: Path) -> None:
    path = data / "documents.sqlite"
    damage(path)
    before = contents(data)
    with pytest.raises(StoreError) as caught:
        DocumentRegistry(path)
    for text in (str(path), "is damaged", "nothing was deleted", "Restore it from a copy"):
        assert text in str(caught.value)
    assert contents(data) == before


def test_a_list_that_is_no_file_or_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "documents.sqlite"):
        with pytest.raises(StoreError, match=str(path)):
            DocumentRegistry(path)


def test_a_daemon_with_damaged_files_says_so_in_one_line_and_leaves_them(data: Path, tmp_path: Path) -> None:
    daemon = Daemon(data, settings_folder=tmp_path / "settings")
    whole_list = (data / "documents.sqlite").read_bytes()
    overwrite(data / "documents.sqlite")
    before = contents(data)
    refusal = daemon.refusal()
    assert refusal.startswith(f"dragon-edge: the list of documents, {data / 'documents.sqlite'}, is damaged")
    assert contents(data) == before
    (data / "documents.sqlite").write_bytes(whole_list)
    cut_short(one(data, "manifest.json"))
    before = contents(data)
    refusal = daemon.refusal()
    assert refusal.startswith(f"dragon-edge: the store in {data / 'store'} is damaged: ")
    assert contents(data) == before
