"""What a document says, and its passages: plain text, Markdown, HTML and PDF."""

import hashlib
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import PurePath

from dragon_core.errors import DocumentError

logger = logging.getLogger(__name__)

MEDIA_TYPES = {
    ".txt": "text/plain",
    ".text": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".pdf": "application/pdf",
}
PASSAGE_TOKENS = 128
"""Longest passage in tokens of the embedding model: a few fit into a context beside the question."""
MAX_TOKEN_CHARACTERS = 16
"""A longer token counts as several: an embedding model takes a word it does not know for one, however long it is."""
BLOCK_CHARACTERS = 50_000
"""A large text is split in blocks, so that the work can be stopped between two of them."""
HIDDEN_ELEMENTS = ("script", "style", "template", "noscript")


def document_id(content: bytes) -> str:
    """The same content has the same id."""
    return hashlib.sha256(content).hexdigest()[:32]


def media_type_of(name: str, content: bytes, *, given: str = "") -> str:
    """The type of a document from what was said of it, its name and its first bytes.

    Raises:
        DocumentError: it is none of the types that can be read.
    """
    if content.startswith(b"%PDF-"):
        return "application/pdf"
    stated = given.split(";", maxsplit=1)[0].strip().lower()
    by_name = MEDIA_TYPES.get(PurePath(name).suffix.lower())
    if by_name is not None and by_name != "application/pdf":
        return by_name
    if stated in MEDIA_TYPES.values() and stated != "application/pdf":
        return stated
    if "application/pdf" in (by_name, stated):
        raise DocumentError(f"{name}: this is no PDF: it does not begin with %PDF-")
    known = ", ".join(sorted(MEDIA_TYPES))
    raise DocumentError(f"{name}: documents of this type cannot be read; known are {known}")


def text_of(content: bytes, *, name: str, media_type: str) -> str:
    """The text of a document.

    Raises:
        DocumentError: it is empty, encrypted, damaged, or not in the encoding it should have.
    """
    match media_type:
        case "application/pdf":
            text = _pdf_text(content, name)
        case "text/html":
            text = _html_text(content)
        case _:
            text = _decoded(content, name)
    if not text.strip():
        raise DocumentError(f"{name}: there is no text in it; scanned pages need text recognition first")
    return text


def _decoded(content: bytes, name: str) -> str:
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DocumentError(f"{name}: this is no {encoding} text ({error.reason} at byte {error.start})") from error
    if "\0" in text:
        raise DocumentError(f"{name}: this is no text: it holds null characters")
    return text


def _html_text(content: bytes) -> str:
    from bs4 import BeautifulSoup

    page = BeautifulSoup(content, "html.parser")
    for element in page(HIDDEN_ELEMENTS):
        element.decompose()
    return str(page.get_text("\n", strip=True))


def _pdf_text(content: bytes, name: str) -> str:
    from pypdf import PdfReader

    try:
        reader = PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentError(f"{name}: the PDF is encrypted: save it without a password first")
        return "\n\n".join(page.extract_text() for page in reader.pages)
    except DocumentError:
        raise
    except Exception as error:
        # The reader meets damaged files with errors of every kind.
        raise DocumentError(f"{name}: the PDF cannot be read: {error}") from error


def passages_of(text: str, *, media_type: str, num_tokens: Callable[[str], int]) -> Iterator[str]:
    """Pieces of at most `PASSAGE_TOKENS` tokens, cut at the largest boundary that fits: section, sentence, word."""
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    def length(piece: str) -> int:
        return max(num_tokens(piece), len(piece) // MAX_TOKEN_CHARACTERS)

    kind = MarkdownSplitter if media_type == "text/markdown" else TextSplitter
    splitter = kind.from_callback(length, PASSAGE_TOKENS)
    for block in _blocks(text):
        yield from (chunk for chunk in splitter.chunks(block) if chunk.strip())


def _blocks(text: str) -> Iterator[str]:
    """The text in parts of bounded length, cut between paragraphs, lines or words where there are any."""
    start = 0
    while start < len(text):
        end = start + BLOCK_CHARACTERS
        if end < len(text):
            cuts = (text.rfind(mark, start, end) + len(mark) for mark in ("\n\n", "\n", " "))
            end = next((cut for cut in cuts if cut > start + BLOCK_CHARACTERS // 2), end)
        yield text[start:end]
        start = end
