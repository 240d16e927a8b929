"""Which documents there are and how far each has come: one SQLite file that survives kill -9 and power loss.

A document that is not done keeps its content here, so that nothing acknowledged is ever lost.
"""

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dragon_core.errors import StoreError, StoreFullError
from dragon_runtime.documents.service import IngestionState, StoredDocument

SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    document_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    added_at REAL NOT NULL,
    state TEXT NOT NULL,
    num_passages INTEGER,
    error TEXT,
    is_deleted INTEGER NOT NULL DEFAULT 0,
    content BLOB
)
"""
MIN_FREE_BYTES = 1 << 20
"""With less, an error of the disk is put down to want of room: SQLite does not always tell."""
COLUMNS = "document_id, name, media_type, size_bytes, added_at, state, num_passages, error"


class DocumentRegistry:
    """Rows of documents. Blocking; every method is one transaction, on disk when it returns."""

    def __init__(self, path: Path) -> None:
        """Open or make the file.

        Raises:
            StoreError: it cannot be opened, or is damaged.
        """
        self._path = path
        with self._translated():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        with ExitStack() as undo, self._translated():
            undo.callback(self._database.close)
            path.chmod(0o600)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute("PRAGMA secure_delete=ON")
            self._database.execute(SCHEMA)
            (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise damaged(path, " ".join(found.split()))
            undo.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def add(self, document: StoredDocument, content: bytes) -> None:
        """Add a document, or start one anew that failed."""
        with self._translated():
            self._database.execute(
                f"INSERT INTO documents ({COLUMNS}, content) VALUES (?, ?, ?, ?, ?, ?, NULL, NULL, ?) "  # noqa: S608
                "ON CONFLICT(document_id) DO UPDATE SET name = excluded.name, media_type = excluded.media_type, "
                "added_at = excluded.added_at, state = excluded.state, error = NULL, num_passages = NULL, "
                "is_deleted = 0, content = excluded.content",
                (
                    document.document_id,
                    document.name,
                    document.media_type,
                    document.size_bytes,
                    document.added_at,
                    IngestionState.QUEUED,
                    content,
                ),
            )

    def get(self, document_id: str) -> StoredDocument | None:
        """A document that is not deleted."""
        rows = self._select("WHERE document_id = ? AND NOT is_deleted", (document_id,))
        return rows[0] if rows else None

    def page(self, *, after: str | None, limit: int) -> list[StoredDocument]:
        """Documents in the order in which they were added, after the one with id `after`."""
        return self._select(
            "WHERE NOT is_deleted AND sequence > "
            "COALESCE((SELECT sequence FROM documents WHERE document_id = ?), 0) ORDER BY sequence LIMIT ?",
            (after, limit),
        )

    def waiting(self) -> list[str]:
        """Ids of documents that are not done, oldest first."""
        with self._translated():
            rows = self._database.execute(
                "SELECT document_id FROM documents WHERE state IN (?, ?) AND NOT is_deleted ORDER BY sequence",
                (IngestionState.QUEUED, IngestionState.RUNNING),
            )
            return [row[0] for row in rows]

    def deleted(self) -> list[str]:
        """Ids of documents whose passages may still be in the store."""
        with self._translated():
            return [row[0] for row in self._database.execute("SELECT document_id FROM documents WHERE is_deleted")]

    def content(self, document_id: str) -> bytes | None:
        """What a document that is not done holds."""
        with self._translated():
            row = self._database.execute(
                "SELECT content FROM documents WHERE document_id = ?", (document_id,)
            ).fetchone()
        return None if row is None else row[0]

    def finish(self, document_id: str, *, num_passages: int) -> None:
        """All passages are in the store: the content is not needed any more."""
        self._set(document_id, "state = ?, num_passages = ?, content = NULL", (IngestionState.DONE, num_passages))

    def fail(self, document_id: str, reason: str) -> None:
        """It can never be read; the reason stays until it is deleted or added again."""
        self._set(document_id, "state = ?, error = ?, content = NULL", (IngestionState.FAILED, reason))

    def mark_deleted(self, document_id: str) -> None:
        """Nobody sees it any more; its passages are removed next."""
        self._set(document_id, "is_deleted = 1, content = NULL", ())

    def forget(self, document_id: str) -> None:
        """Its passages are gone."""
        with self._translated():
            self._database.execute("DELETE FROM documents WHERE document_id = ? AND is_deleted", (document_id,))

    def _set(self, document_id: str, assignments: str, values: tuple[object, ...]) -> None:
        with self._translated():
            self._database.execute(
                f"UPDATE documents SET {assignments} WHERE document_id = ?",  # noqa: S608 - assignments are ours
                (*values, document_id),
            )

    def _select(self, condition: str, values: tuple[object, ...]) -> list[StoredDocument]:
        with self._translated():
            rows = self._database.execute(f"SELECT {COLUMNS} FROM documents {condition}", values).fetchall()  # noqa: S608
        return [
            StoredDocument(
                document_id=row[0],
                name=row[1],
                media_type=row[2],
                size_bytes=row[3],
                added_at=row[4],
                state=IngestionState(row[5]),
                num_passages_done=row[6] or 0,
                num_passages=row[6],
                error=row[7],
            )
            for row in rows
        ]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._problem(error) from error
        except OSError as error:
            kind = StoreFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreError
            raise kind(f"the list of documents, {self._path}, cannot be read or written: {error}") from error

    def _problem(self, error: sqlite3.Error) -> StoreError:
        kind = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest of the code says more than is needed
        if kind == sqlite3.SQLITE_FULL or (kind == sqlite3.SQLITE_IOERR and self._is_disk_full()):
            return StoreFullError("the disk is full: free some space and try again")
        if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return damaged(self._path, str(error))
        return StoreError(f"the list of documents, {self._path}, cannot be read or written: {error}")

    def _is_disk_full(self) -> bool:
        return shutil.disk_usage(self._path.parent).free < MIN_FREE_BYTES


def damaged(path: Path, reason: str) -> StoreError:
    """What a user is told of a list that cannot be trusted any more."""
    return StoreError(
        f"the list of documents, {path}, is damaged ({reason}); nothing was deleted. Restore it from a copy, "
        "or move it and the folder of the store away and add the documents again"
    )
