"""A `DocumentService` in memory: what is added is done at once."""

from dataclasses import dataclass, field

from dragon_core.errors import DocumentError
from dragon_runtime.documents.service import Added, DocumentPage, IngestionState, StoredDocument
from dragon_runtime.documents.text import document_id, media_type_of
from dragon_runtime.interfaces import Passage


@dataclass
class DocumentsInMemory:
    """Keeps documents in a dict; `failure` is raised by everything that is asked."""

    failure: Exception | None = None
    contents: dict[str, bytes] = field(default_factory=dict)
    documents: dict[str, StoredDocument] = field(default_factory=dict)

    async def add(self, content: bytes, *, name: str, media_type: str) -> Added:
        self._fail()
        if not content:
            raise DocumentError(f"{name}: the document is empty")
        kind = media_type_of(name, content, given=media_type)
        key = document_id(content)
        is_new = key not in self.documents
        if is_new:
            self.contents[key] = content
            self.documents[key] = StoredDocument(
                document_id=key,
                name=name,
                media_type=kind,
                size_bytes=len(content),
                added_at=1_700_000_000.0,
                state=IngestionState.DONE,
                num_passages_done=1,
                num_passages=1,
            )
        return Added(self.documents[key], is_new)

    async def page(self, *, after: str | None, limit: int) -> DocumentPage:
        self._fail()
        found = list(self.documents.values())
        start = 1 + next((at for at, document in enumerate(found) if document.document_id == after), -1)
        shown = tuple(found[start : start + limit])
        return DocumentPage(shown, shown[-1].document_id if len(found) > start + limit else None)

    async def get(self, document_id: str) -> StoredDocument | None:
        self._fail()
        return self.documents.get(document_id)

    async def delete(self, document_id: str) -> bool:
        self._fail()
        self.contents.pop(document_id, None)
        return self.documents.pop(document_id, None) is not None

    async def search(self, query: str, *, num_passages: int) -> tuple[Passage, ...]:
        """Passages are whole documents, as relevant as they share words with the query."""
        self._fail()
        words = set(query.lower().split())
        found = [
            Passage(document_id=key, text=text, relevance=len(words & set(text.lower().split())) / len(words))
            for key, content in self.contents.items()
            for text in [content.decode("utf-8", "replace")]
        ]
        return tuple(sorted(found, key=lambda passage: -passage.relevance)[:num_passages])

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure
