"""Reading and splitting documents."""

import io

import pytest
from pypdf import PdfWriter

from dragon_core.errors import DocumentError
from dragon_runtime.documents.text import PASSAGE_TOKENS, document_id, media_type_of, passages_of, text_of


def words(text: str) -> int:
    return len(text.split())


def test_hidden_parts_of_a_page_are_no_text() -> None:
    page = b"<html><head><style>p {}</style></head><body><p>The gate is 12.</p><script>steal()</script></body></html>"
    assert text_of(page, name="a.html", media_type="text/html") == "The gate is 12."


@pytest.mark.parametrize(
    ("content", "media_type", "reason"),
    [
        (b"   \n", "text/plain", "no text"),
        (b"\xff\x00\x81", "text/plain", "no utf-8"),
        (b"a\0b", "text/plain", "null"),
        (b"%PDF-1.7 nonsense", "application/pdf", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused(content: bytes, media_type: str, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        text_of(content, name="x", media_type=media_type)


def test_an_encrypted_pdf_is_refused() -> None:
    writer = PdfWriter()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret", algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    with pytest.raises(DocumentError, match="encrypted"):
        text_of(buffer.getvalue(), name="x.pdf", media_type="application/pdf")


def test_the_type_comes_from_the_name_or_what_was_said() -> None:
    assert media_type_of("notes.md", b"# x") == "text/markdown"
    assert media_type_of("upload", b"x", given="text/plain; charset=utf-8") == "text/plain"
    assert media_type_of("upload", b"%PDF-1.4") == "application/pdf"
    for name in ("a.exe", "a.pdf"):
        with pytest.raises(DocumentError):
            media_type_of(name, b"MZ")


def test_passages_are_bounded_and_lose_no_words() -> None:
    text = "\n\n".join(" ".join(f"w{i}x{j}" for j in range(97)) + "." for i in range(20))
    passages = list(passages_of(text, media_type="text/plain", num_tokens=words))
    assert max(map(words, passages)) <= PASSAGE_TOKENS
    assert " ".join(passages).split() == text.split()


def test_equal_content_has_an_equal_id() -> None:
    assert document_id(b"a") == document_id(b"a") != document_id(b"b")
