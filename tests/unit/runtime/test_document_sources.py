"""Documents in folders, files and archives, and archives that mean harm."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from dragon_core.errors import DocumentError
from dragon_runtime.documents.sources import FoundDocument, ReadingLimits, SkippedDocument, documents_in

LIMITS = ReadingLimits(document_bytes=1000, archive_files=10, archive_bytes=5000)
FILES = {"a.txt": b"one", "b/c.md": b"two", "picture.png": b"none", "b/._c.md": b"of another system"}
EXPECTED = [FoundDocument("a.txt", b"one"), FoundDocument("c.md", b"two")]


def write_tar(path: Path, files: Mapping[str, bytes], *, mode: str = "w:gz", links: Mapping[str, str] = {}) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return path


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_folder_an_archive_and_a_file_give_their_documents(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "b").mkdir(parents=True)
    for name in ("a.txt", "b/c.md", "picture.png"):
        (folder / name).write_bytes(FILES[name])
    assert list(documents_in(folder)) == EXPECTED
    assert list(documents_in(folder / "a.txt")) == EXPECTED[:1]
    for archive in (
        write_tar(tmp_path / "all.tar.gz", FILES),
        write_tar(tmp_path / "all.tar", FILES, mode="w"),
        write_zip(tmp_path / "all.zip", FILES),
    ):
        assert list(documents_in(archive)) == EXPECTED
    with pytest.raises(DocumentError, match="no such file or folder"):
        list(documents_in(tmp_path / "none"))


def test_what_a_server_said_tells_an_archive_from_a_document(tmp_path: Path) -> None:
    write_zip(tmp_path / "fetched", FILES)
    assert list(documents_in(tmp_path / "fetched", name="download", media_type="application/zip")) == EXPECTED
    (tmp_path / "page").write_bytes(b"<p>one")
    found = list(documents_in(tmp_path / "page", name="handbook", media_type="text/html; charset=utf-8"))
    assert found == [FoundDocument("handbook", b"<p>one", "text/html; charset=utf-8")]


def test_names_that_lead_elsewhere_are_names_and_nothing_is_written(tmp_path: Path) -> None:
    names = {"../../up.txt": b"1", "/etc/root.txt": b"2", "a/../../b.md": b"3", "..\\..\\win.txt": b"4"}
    before = sorted(tmp_path.parent.rglob("*"))
    for archive in (write_tar(tmp_path / "evil.tar.gz", names), write_zip(tmp_path / "evil.zip", names)):
        found = [each.name for each in documents_in(archive)]
        assert found == ["up.txt", "root.txt", "b.md", "win.txt"]
        archive.unlink()
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_links_and_devices_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_bytes(b"secret")
    links = {"a.txt": str(tmp_path / "secret.txt"), "b.txt": "../secret.txt"}
    assert list(documents_in(write_tar(tmp_path / "links.tar.gz", {"c.txt": b"3"}, links=links))) == [
        FoundDocument("c.txt", b"3")
    ]


def test_a_large_document_is_skipped_whatever_the_archive_says_of_it(tmp_path: Path) -> None:
    files = {"large.txt": b"x" * 1001, "fits.txt": b"x" * 1000}
    archives = [write_tar(tmp_path / "a.tar.gz", files), write_zip(tmp_path / "a.zip", files)]
    for archive in archives:
        large, fits = documents_in(archive, limits=LIMITS)
        assert large == SkippedDocument("large.txt", "it has more than 1000 bytes")
        assert fits == FoundDocument("fits.txt", files["fits.txt"])
    (tmp_path / "large.txt").write_bytes(files["large.txt"])
    assert list(documents_in(tmp_path / "large.txt", limits=LIMITS)) == [large]
    # A zip file whose directory lies about the size: reading stops there, or at the limit.
    lying = bytearray(archives[1].read_bytes())
    at = lying.index(b"PK\x01\x02")
    lying[at + 24 : at + 28] = (7).to_bytes(4, "little")
    (tmp_path / "lying.zip").write_bytes(lying)
    with pytest.raises(DocumentError, match=r"lying\.zip: the archive cannot be read"):
        list(documents_in(tmp_path / "lying.zip", limits=LIMITS))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({f"{at}.txt": b"1" for at in range(11)}, "more than 10 files"),
        ({f"{at}.bin": b"\0" * 1000 for at in range(6)}, "unpacks to more than 5000 bytes"),
        ({"bomb.txt": b"\0" * 1_000_000}, "unpacks to more than 5000 bytes"),
    ],
)
def test_an_archive_beyond_the_limits_is_refused(tmp_path: Path, files: dict[str, bytes], told: str) -> None:
    for archive in (write_tar(tmp_path / "a.tar.gz", files), write_zip(tmp_path / "a.zip", files)):
        with pytest.raises(DocumentError, match=told):
            list(documents_in(archive, limits=LIMITS))


def test_a_header_that_claims_to_be_long_is_not_read(tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
            header = tarfile.TarInfo("long")
            header.type, header.size = kind, 1_000_000
            archive.addfile(header, io.BytesIO(b"\0" * header.size))
        with pytest.raises(DocumentError, match="a part of it has 1000448 bytes"):
            list(documents_in(tmp_path / "a.tar.gz", limits=LIMITS))


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
def test_a_damaged_archive_says_so(tmp_path: Path, name: str) -> None:
    content = bytes(range(256)) * 40
    (tmp_path / name).write_bytes(b"no archive at all" * 50)
    with pytest.raises(DocumentError, match=f"{name}: the archive cannot be read"):
        list(documents_in(tmp_path / name))
    whole = {"a.zip": lambda path: write_zip(path, {"a.txt": content, "b.txt": content})}.get(
        name, lambda path: write_tar(path, {"a.txt": content, "b.txt": content}, mode="w:gz" if "gz" in name else "w")
    )(tmp_path / name)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DocumentError, match=f"{name}: the archive cannot be read"):
        list(documents_in(whole))


def test_an_encrypted_document_is_skipped(tmp_path: Path) -> None:
    archive = bytearray(write_zip(tmp_path / "a.zip", {"a.txt": b"one"}).read_bytes())
    archive[archive.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(archive)
    assert list(documents_in(tmp_path / "a.zip")) == [SkippedDocument("a.txt", "it is encrypted")]
