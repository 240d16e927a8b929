"""/v1/documents: add, list, look at, search and remove the device's private documents."""

import re
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import JSONResponse

from dragon_runtime.documents import DocumentService, StoredDocument
from edge_daemon.api.completion import Body
from edge_daemon.api.errors import ApiError
from edge_daemon.api.schemas import SearchRequest
from edge_daemon.api.security import too_large
from edge_daemon.settings import ApiSettings

MEDIA_TYPES = {
    ".txt": "text/plain",
    ".text": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".pdf": "application/pdf",
    ".html": "text/html",
    ".htm": "text/html",
}
MAX_NAME_CHARACTERS = 255
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
        name = _name_of(upload)
        content = await upload.read()
        await upload.close()
        added = await documents.add(content, name=name, media_type=_media_type(upload, name))
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


async def _read_upload(request: Request, *, max_bytes: int) -> UploadFile:
    """The one file of a multipart body, kept in memory: private documents leave no temporary file behind."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(HTTPStatus.BAD_REQUEST, "send the document as multipart/form-data with a part named file")
    parser = MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=0)
    parser.spool_max_size = max_bytes + 1
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ApiError(HTTPStatus.BAD_REQUEST, f"the multipart body cannot be read: {error.message}") from error
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise ApiError(HTTPStatus.BAD_REQUEST, "the body has no file in a part named file", param="file")
    if (upload.size or 0) > max_bytes:
        problem = too_large(f"a document of {upload.size} bytes", max_bytes)
        raise ApiError(problem.status, problem.message, code=problem.code, param="file")
    return upload


def _name_of(upload: UploadFile) -> str:
    """The name without folders and control characters; it is shown, never opened."""
    name = PurePosixPath((upload.filename or "").replace("\\", "/")).name
    name = re.sub(r"[\x00-\x1f\x7f]", "", name)[-MAX_NAME_CHARACTERS:]
    if not name:
        raise ApiError(HTTPStatus.BAD_REQUEST, "the file has no name", param="file")
    return name


def _media_type(upload: UploadFile, name: str) -> str:
    """By the name's ending, which clients get right more often than the type they send."""
    sent = (upload.content_type or "application/octet-stream").partition(";")[0].strip().lower()
    return MEDIA_TYPES.get(PurePosixPath(name).suffix.lower(), sent)
