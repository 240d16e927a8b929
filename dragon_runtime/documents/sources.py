"""Documents in a file, a folder or an archive, one after the other.

Nothing of an archive is ever written to disk: a path in it is a name, and its size is bounded while it is read.
"""

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from dragon_core.errors import DocumentError, shown
from dragon_runtime.documents.text import MEDIA_TYPES

MIB = 1024 * 1024
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
GZIP_MAGIC = b"\x1f\x8b"
ARCHIVE_TYPES = {
    "application/zip": ".zip",
    "application/gzip": ".tar.gz",
    "application/x-gzip": ".tar.gz",
    "application/x-tar": ".tar",
}
"""What servers call archives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingLimits:
    """The most that is read: bytes of one document, files of an archive, and bytes that it unpacks to."""

    document_bytes: int = 64 * MIB
    archive_files: int = 200_000
    archive_bytes: int = 8192 * MIB


@dataclass(frozen=True, slots=True)
class FoundDocument:
    """A document; `media_type` is what a server said of it, often nothing."""

    name: str
    content: bytes
    media_type: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", shown(self.name))


@dataclass(frozen=True, slots=True)
class SkippedDocument:
    """A file that looks like a document and cannot be read, and why."""

    name: str
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", shown(self.name))


Found = FoundDocument | SkippedDocument


def documents_in(
    path: Path, *, name: str | None = None, media_type: str = "", limits: ReadingLimits = ReadingLimits()
) -> Iterator[Found]:
    """Every document in a folder, an archive, or a file that is one. Blocking.

    `name` and `media_type`: what a file from elsewhere was called there.

    Raises:
        DocumentError: there is no such path, or an archive is damaged or larger than the limits allow.
    """
    called = shown(name or path.name)
    kind = media_type.split(";", maxsplit=1)[0].strip().lower()
    suffixes = f"{called}{ARCHIVE_TYPES.get(kind, '')}".lower()
    if path.is_dir():
        yield from _in_folder(path, limits)
    elif suffixes.endswith(".zip"):
        yield from _in_zip(path, called, limits)
    elif suffixes.endswith(TAR_SUFFIXES):
        yield from _in_tar(path, called, limits)
    elif path.is_file():
        yield _of_file(path, called, media_type, limits)
    else:
        raise DocumentError(f"{path}: there is no such file or folder")


def _in_folder(folder: Path, limits: ReadingLimits) -> Iterator[Found]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in MEDIA_TYPES and path.is_file():
            yield _of_file(path, path.name, "", limits)


def _of_file(path: Path, name: str, media_type: str, limits: ReadingLimits) -> Found:
    try:
        with path.open("rb") as file:
            return _read(file, name, limits, media_type)
    except OSError as error:
        return SkippedDocument(name, f"it cannot be read: {error.strerror}")


def _read(file: IO[bytes], name: str, limits: ReadingLimits, media_type: str = "") -> Found:
    content = file.read(limits.document_bytes + 1)
    if len(content) > limits.document_bytes:
        return SkippedDocument(name, f"it has more than {limits.document_bytes} bytes")
    return FoundDocument(name, content, media_type)


def _in_tar(path: Path, called: str, limits: ReadingLimits) -> Iterator[Found]:
    bounds = _Bounds(called, limits)
    try:
        with _unpacked(path) as unpacked, tarfile.open(fileobj=_bounded(unpacked, limits), mode="r:") as archive:
            for member in archive:
                bounds.count(member.size)
                if not member.isfile() or not _is_document(member.name):
                    continue
                if member.size > limits.document_bytes:
                    yield SkippedDocument(_name(member.name), f"it has more than {limits.document_bytes} bytes")
                elif (file := archive.extractfile(member)) is not None:
                    yield _read(file, _name(member.name), limits)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DocumentError(f"{called}: the archive cannot be read: {error}") from error


def _unpacked(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """The bytes of a tar file, of one that a server has unpacked on the way too. No kind of it needs much memory."""
    with path.open("rb") as file:
        is_packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    return gzip.open(path) if is_packed else path.open("rb")


def _bounded(file: gzip.GzipFile | io.BufferedReader, limits: ReadingLimits) -> IO[bytes]:
    return cast("IO[bytes]", _BoundedReader(file, limits))


class _BoundedReader:
    """A tar file whose parts are small: the library reads a long name into memory, however long it says it is."""

    def __init__(self, file: gzip.GzipFile | io.BufferedReader, limits: ReadingLimits) -> None:
        self._file, self._limits = file, limits

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._limits.document_bytes + tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"a part of it has {size} bytes")
        return self._file.read(size)

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def close(self) -> None:
        """The file belongs to who opened it."""


def _in_zip(path: Path, called: str, limits: ReadingLimits) -> Iterator[Found]:
    bounds = _Bounds(called, limits)
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                bounds.count(member.file_size)
                if member.is_dir() or not _is_document(member.filename):
                    continue
                if member.flag_bits & 1:
                    yield SkippedDocument(_name(member.filename), "it is encrypted")
                    continue
                # What is read is bounded, whatever the archive says of its size.
                with archive.open(member) as file:
                    yield _read(file, _name(member.filename), limits)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, zlib.error) as error:
        raise DocumentError(f"{called}: the archive cannot be read: {error}") from error


class _Bounds:
    """Counts what an archive holds, and refuses too much of it."""

    def __init__(self, called: str, limits: ReadingLimits) -> None:
        self._called, self._limits = called, limits
        self._num_files = self._num_bytes = 0

    def count(self, num_bytes: int) -> None:
        """One more file of so many bytes."""
        self._num_files += 1
        self._num_bytes += num_bytes
        if self._num_files > self._limits.archive_files:
            raise DocumentError(f"{self._called} holds more than {self._limits.archive_files} files: split it")
        if self._num_bytes > self._limits.archive_bytes:
            raise DocumentError(f"{self._called} unpacks to more than {self._limits.archive_bytes} bytes: split it")


def _is_document(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in MEDIA_TYPES and not path.name.startswith("._")


def _name(name: str) -> str:
    """What a file in an archive is called, without where it wants to lie."""
    return PurePosixPath(name.replace("\\", "/")).name
