"""/v1/documents: add, list, show, search and remove the device's private documents."""

import unicodedata
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from dragon_runtime.documents.service import MAX_NAME_CHARACTERS, DocumentService, StoredDocument
from edge_daemon.api.completion import Body
from edge_daemon.api.errors import ApiError
from edge_daemon.api.schemas import SearchRequest
from edge_daemon.api.security import too_large
from edge_daemon.settings import ApiSettings

INVISIBLE = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
UPLOAD_SCHEMA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


def documents_router(documents: DocumentService, settings: ApiSettings) -> APIRouter:
    """Routes of documents."""
    router = APIRouter(prefix="/v1/documents", tags=["documents"])

    @router.post("", status_code=HTTPStatus.ACCEPTED, openapi_extra=UPLOAD_SCHEMA)
    async def add(request: Request) -> JSONResponse:
        """Take a document; GET it to follow its progress. The same content again changes nothing."""
        upload = await _read_upload(request, max_bytes=settings.max_document_bytes)
        added = await documents.add(upload.content, name=upload.name, media_type=upload.media_type)
        status = HTTPStatus.ACCEPTED if added.is_new else HTTPStatus.OK
        return JSONResponse(_body(added.document), status_code=status)

    @router.get("")
    async def list_documents(after: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Body:
        """Documents, oldest first, in parts."""
        page = await documents.page(after=after, limit=limit)
        return {
            "object": "list",
            "data": [_body(document) for document in page.documents],
            "has_more": page.next_after is not None,
            "next_after": page.next_after,
        }

    @router.post("/search")
    async def search(body: SearchRequest) -> Body:
        """The passages an answer to this query would be written from, with their relevance."""
        passages = await documents.search(body.query, num_passages=body.num_passages)
        found = [
            {"document_id": passage.document_id, "relevance": passage.relevance, "text": passage.text}
            for passage in passages
        ]
        return {"object": "list", "data": found}

    @router.get("/{document_id}")
    async def get(document_id: str) -> Body:
        """A document and how far it has come."""
        document = await documents.get(document_id)
        if document is None:
            raise _not_found(document_id)
        return _body(document)

    @router.delete("/{document_id}")
    async def delete(document_id: str) -> Body:
        """Remove a document with all its passages."""
        if not await documents.delete(document_id):
            raise _not_found(document_id)
        return {"id": document_id, "object": "document", "deleted": True}

    return router


def _not_found(document_id: str) -> ApiError:
    message = f"there is no document {document_id!r}"
    return ApiError(HTTPStatus.NOT_FOUND, message, code="document_not_found", param="document_id")


def _body(document: StoredDocument) -> Body:
    return {
        "id": document.document_id,
        "object": "document",
        "name": document.name,
        "media_type": document.media_type,
        "size_bytes": document.size_bytes,
        "added_at": document.added_at,
        "state": document.state.value,
        "num_passages_done": document.num_passages_done,
        "num_passages": document.num_passages,
        "error": document.error,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Upload:
    """A document as it was sent. `media_type` is what the client said of it, which is often wrong."""

    name: str
    media_type: str
    content: bytes


class _Parser(MultiPartParser):
    """Of one file, kept in memory: private documents leave no temporary file behind."""

    def __init__(self, request: Request, *, max_bytes: int) -> None:
        super().__init__(request.headers, request.stream(), max_files=1, max_fields=0)
        self.spool_max_size = max_bytes + 1

    def close(self) -> None:
        """Free what was read, whether it became a whole file or not."""
        for file in self._files_to_close_on_error:
            file.close()


async def _read_upload(request: Request, *, max_bytes: int) -> _Upload:
    """The one file of a multipart body."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise _bad_body("the body is something else")
    parser = _Parser(request, max_bytes=max_bytes)
    try:
        file = (await parser.parse()).get("file")
        if not isinstance(file, UploadFile):
            raise _bad_body("there is no such part, or it is cut short")
        if (file.size or 0) > max_bytes:
            problem = too_large(f"a document of {file.size} bytes", max_bytes)
            raise ApiError(problem.status, problem.message, code=problem.code, param="file")
        return _Upload(name=_name_of(file), media_type=file.content_type or "", content=await file.read())
    except MultiPartException as error:
        raise _bad_body(error.message.rstrip(".")) from error
    except ClientDisconnect as error:
        raise _bad_body("the client went away") from error
    finally:
        parser.close()


def _bad_body(reason: str) -> ApiError:
    message = f"send one document as multipart/form-data, as a file in a part named file: {reason}"
    return ApiError(HTTPStatus.BAD_REQUEST, message, code="bad_upload", param="file")


def _name_of(file: UploadFile) -> str:
    """The name without folders and without characters that cannot be seen; shown, never opened."""
    name = PurePosixPath((file.filename or "").replace("\\", "/")).name
    name = "".join(letter for letter in name if unicodedata.category(letter) not in INVISIBLE)
    name = name[-MAX_NAME_CHARACTERS:]
    if not name.strip(". "):
        raise _bad_body("the file has no name")
    return name
