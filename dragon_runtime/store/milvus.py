"""Passages with their vectors in Milvus, embedded behind a unix socket or on a server: one class for both.

An embedded store opens no TCP port: any user of the machine could read private documents through one.
"""

import asyncio
import contextlib
import errno
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dragon_core.errors import StoreError, StoreFullError
from dragon_runtime.interfaces import Embedder, Passage
from dragon_runtime.outgoing import GRPC_WITHOUT_PROXY
from dragon_runtime.redaction import redacted
from dragon_runtime.store.folder import require_sound

logger = logging.getLogger(__name__)

COLLECTION_PREFIX = "passages_"
MAX_TEXT_BYTES = 65_535
MAX_SOCKET_PATH = 100
"""Longest path of a unix socket is 107 bytes on Linux; some is left for the name."""
INDEX_TYPE = "HNSW"
NO_ROOM = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
"""How the store says that the disk is full: its errors come as text."""
Result = TypeVar("Result")


class MilvusStore:
    """A `Retriever` over one collection. Calls into Milvus run on one thread of their own."""

    def __init__(self, client: Any, *, embedder: Embedder, stop: Callable[[], None], is_server: bool) -> None:
        self._client, self._embedder, self._stop = client, embedder, stop
        self._consistency = {"consistency_level": "Session"} if is_server else {}
        self._is_server = is_server
        # Every server has the one, from 2.3 on; the embedded store has the other.
        self._id_index = "Trie" if is_server else "INVERTED"
        # The name tells whose vectors these are: the embedded store keeps no description of a collection.
        label = re.sub(r"[^a-z0-9]+", "_", embedder.name.lower())
        self._collection = f"{COLLECTION_PREFIX}{label}_{embedder.revision[:16]}"
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="milvus")

    @classmethod
    async def open_folder(cls, folder: Path, *, embedder: Embedder) -> "MilvusStore":
        """Open the embedded store in `folder`, made with mode 0700 where it does not exist.

        Raises:
            StoreError: another process holds it, it is damaged, or it was filled with another embedding model.
        """
        return await asyncio.to_thread(cls._open_folder, folder, embedder)

    @classmethod
    def _open_folder(cls, folder: Path, embedder: Embedder) -> "MilvusStore":
        from milvus_lite import DataDirLockedError, MilvusLite, MilvusLiteError
        from milvus_lite.adapter.grpc.server import _build_server
        from pymilvus import MilvusClient

        _hush()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            database = MilvusLite(str(folder / "milvus"))
        except DataDirLockedError as error:
            raise StoreError(f"the store in {folder} is in use by another process: stop that one first") from error
        except (MilvusLiteError, OSError) as error:
            raise StoreError(f"the store in {folder} cannot be opened: {error}") from error
        with contextlib.ExitStack() as undo:
            undo.callback(database.close)
            require_sound(folder / "milvus")
            socket = undo.enter_context(_socket_path(folder))
            server = _build_server(database, 4)
            if not server.add_insecure_port(f"unix:{socket}"):
                raise StoreError(f"cannot listen on {socket}")
            server.start()
            undo.callback(lambda: server.stop(grace=1).wait())
            with _translated():
                # The embedded server takes frequent pings for an attack and hangs up.
                options = dict([GRPC_WITHOUT_PROXY, ("grpc.keepalive_time_ms", 2**31 - 1)])
                client = MilvusClient(uri=f"unix:{socket}", grpc_options=options)
                undo.callback(client.close)
                store = cls(client, embedder=embedder, stop=undo.close, is_server=False)
                store._prepare()
            undo_all = undo.pop_all()
        store._stop = undo_all.close
        return store

    @classmethod
    async def open_server(
        cls,
        uri: str,
        *,
        embedder: Embedder,
        token: str | None = None,
        former_tokens: Sequence[str] = (),
        is_tls: bool = False,
    ) -> "MilvusStore":
        """Use a Milvus server. One that takes none but a former token is given the password of `token` first.

        Raises:
            StoreError: it cannot be reached, or its collection was filled with another embedding model.
        """

        def connect() -> MilvusStore:
            _hush()
            with _translated():
                client = _log_in(uri, token or "", former_tokens, is_tls=is_tls)
                store = cls(client, embedder=embedder, stop=client.close, is_server=True)
                store._prepare()
            return store

        return await asyncio.to_thread(connect)

    def _prepare(self) -> None:
        """Make the collection, or check that it fits the embedding model."""
        from pymilvus import DataType, MilvusClient, MilvusException

        others = [
            name
            for name in self._client.list_collections()
            if name.startswith(COLLECTION_PREFIX) and name != self._collection
        ]
        if others:
            raise StoreError(
                f"the store was filled with another embedding model (it holds {others[0]}, this one needs "
                f"{self._collection}): set embedding.uri to that model, or add the documents again to an empty store"
            )
        if not self._client.has_collection(self._collection):
            schema = MilvusClient.create_schema()
            schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=100)
            schema.add_field("document_id", DataType.VARCHAR, max_length=64)
            schema.add_field("text", DataType.VARCHAR, max_length=MAX_TEXT_BYTES)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._embedder.dimension)
            index = MilvusClient.prepare_index_params()
            index.add_index(
                "vector", index_type=INDEX_TYPE, metric_type="COSINE", params={"M": 16, "efConstruction": 200}
            )
            index.add_index("document_id", index_type=self._id_index)
            self._client.create_collection(self._collection, schema=schema, index_params=index)
        try:
            self._client.load_collection(self._collection)
        except MilvusException:
            if not self._is_server:
                raise
            # Two ends made the collection at once: it was loaded before it had all of its indexes.
            self._client.release_collection(self._collection)
            self._client.load_collection(self._collection)

    async def close(self) -> None:
        """Stop the embedded server, or leave the other one."""
        await self._call(self._stop)
        self._executor.shutdown()

    async def put(self, document_id: str, *, first: int, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Write passages `first`, `first + 1`, ... of a document; writing them again changes nothing.

        Raises:
            StoreError: they cannot be written.
        """
        rows = [
            {"id": f"{document_id}:{first + at}", "document_id": document_id, "text": text, "vector": vector.tolist()}
            for at, (text, vector) in enumerate(zip(texts, vectors, strict=True))
        ]
        await self._call(lambda: self._client.upsert(self._collection, rows))

    async def flush(self) -> None:
        """Write everything out: unflushed passages are slow to search."""
        await self._call(lambda: self._client.flush(self._collection))

    async def delete(self, document_id: str) -> None:
        """Remove all passages of a document."""
        if not document_id.isalnum():
            raise StoreError(f"{document_id!r} is no document id")
        # The embedded store knows no parameters in filters.
        await self._call(lambda: self._client.delete(self._collection, filter=f'document_id == "{document_id}"'))

    async def count(self) -> int:
        """Passages in the store."""
        rows = await self._call(
            lambda: self._client.query(self._collection, filter="", output_fields=["count(*)"], **self._consistency)
        )
        return int(rows[0]["count(*)"])

    async def retrieve(self, query: str, *, num_passages: int) -> list[Passage]:
        """The passages most similar to `query`, best first; see `Retriever`."""
        if num_passages == 0:
            return []
        vector = (await self._embedder.embed([query]))[0].tolist()
        found = await self._call(
            lambda: self._client.search(
                self._collection,
                data=[vector],
                limit=num_passages,
                output_fields=["document_id", "text"],
                **self._consistency,
            )
        )
        passages = [
            Passage(
                document_id=hit["entity"]["document_id"],
                text=hit["entity"]["text"],
                relevance=float(min(1.0, max(-1.0, hit["distance"]))),
            )
            for hit in found[0]
        ]
        return sorted(passages, key=lambda passage: (-passage.relevance, passage.document_id, passage.text))

    async def _call(self, act: Callable[[], Result]) -> Result:
        def guarded() -> Result:
            with _translated():
                return act()

        return await asyncio.get_running_loop().run_in_executor(self._executor, guarded)


def _log_in(uri: str, token: str, former_tokens: Sequence[str], *, is_tls: bool) -> Any:
    """A client that the server takes. With a former token the password is changed; another end may do so meanwhile."""
    from pymilvus import MilvusClient

    def connect(with_token: str) -> Any:
        # A client of its own: a shared one would be taken unseen where an earlier one was.
        return MilvusClient(
            uri=uri, token=with_token, secure=is_tls, dedicated=True, grpc_options=dict([GRPC_WITHOUT_PROXY])
        )

    for candidate in (token, *former_tokens):
        try:
            client = connect(candidate)
        except Exception as error:
            if _is_refused(error):
                continue
            raise
        if candidate == token:
            return client
        user, _, new = token.partition(":")
        with contextlib.closing(client):
            client.update_password(user, candidate.partition(":")[2], new)
        logger.info("the document store's password of %s was changed to the new one", user)
        break
    return connect(token)


def _is_refused(error: BaseException) -> bool:
    """Whether the server does not take the token: of a connect that failed this is only the cause."""
    import grpc

    said = error if isinstance(error, grpc.RpcError) else error.__cause__
    return isinstance(said, grpc.Call) and said.code() is grpc.StatusCode.UNAUTHENTICATED


def _hush() -> None:
    """Both log every error with a trace before they raise it, which is what we make one line of. After the import:
    it sets up their logging anew.
    """
    for logger_name in ("pymilvus", "milvus_lite.adapter.grpc.servicer"):
        logging.getLogger(logger_name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _socket_path(folder: Path) -> Iterator[Path]:
    """A path for the socket in a folder that only we can enter."""
    socket = folder / "milvus.sock"
    if len(str(socket).encode()) > MAX_SOCKET_PATH:
        with tempfile.TemporaryDirectory(prefix="dragon-") as short:
            yield Path(short) / "milvus.sock"
        return
    folder.chmod(0o700)
    socket.unlink(missing_ok=True)
    yield socket
    socket.unlink(missing_ok=True)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Milvus' errors as ours. What its server refuses before it looks at a call comes as an error of gRPC's."""
    import grpc
    from pymilvus import MilvusException

    try:
        yield
    except (MilvusException, grpc.RpcError, OSError) as error:
        if _is_refused(error):
            raise StoreError("the document store does not take this user and password: check store.token") from error
        reason = redacted(str(error.message if isinstance(error, MilvusException) else error))
        if any(text in reason for text in NO_ROOM):
            raise StoreFullError(f"there is no room for documents: free some space ({reason})") from error
        raise StoreError(f"the document store failed: {reason}") from error
