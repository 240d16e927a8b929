"""The documents of one end, as those who add and read them see them. `ingestion` implements this."""

import enum
from dataclasses import dataclass
from typing import Protocol

from dragon_runtime.interfaces import Passage

MAX_NAME_CHARACTERS = 255


class IngestionState(enum.StrEnum):
    """How far a document has come."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """A document with its progress. `num_passages` is None until the text is split; `added_at` is Unix time."""

    document_id: str
    name: str
    media_type: str
    size_bytes: int
    added_at: float
    state: IngestionState
    num_passages_done: int = 0
    num_passages: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What adding did: `is_new` is false when the same content was there already and nothing changed."""

    document: StoredDocument
    is_new: bool


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """A part of the list, oldest first; `next_after` is where the next part begins, None at the end."""

    documents: tuple[StoredDocument, ...]
    next_after: str | None


class DocumentService(Protocol):
    """Keeps the private documents."""

    async def add(self, content: bytes, *, name: str, media_type: str) -> Added:
        """Take a document and begin to split, embed and store it.

        Raises:
            DocumentError: empty, unreadable or of an unknown type. StoreError: it cannot be kept.
        """

    async def page(self, *, after: str | None, limit: int) -> DocumentPage:
        """At most `limit` documents after the one with id `after`."""

    async def get(self, document_id: str) -> StoredDocument | None: ...

    async def delete(self, document_id: str) -> bool:
        """Remove a document and its passages; false when there is none."""

    async def search(self, query: str, *, num_passages: int) -> tuple[Passage, ...]:
        """The most relevant passages first."""
