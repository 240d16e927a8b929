"""Whether the files of an embedded store are whole. Looked at before it is opened: the library replaces a list of files
that it cannot read by an older one, and then deletes every file that one does not name.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from dragon_core.errors import StoreError

PARQUET_MAGIC = b"PAR1"
MIN_PARQUET_BYTES = 12


def require_sound(folder: Path) -> None:
    """Check every collection below `folder`; nothing is changed, but for what a killed first start left empty.

    Raises:
        StoreError: a file is missing or damaged; names it and says what to do.
    """
    for collection in sorted((folder / "collections").glob("*/")):
        if (collection / "schema.json").exists():
            _require_sound_collection(folder, collection)
        elif {path.name for path in collection.iterdir()} <= {"schema.json.tmp"}:
            (collection / "schema.json.tmp").unlink(missing_ok=True)
            collection.rmdir()
        else:
            raise _damaged(folder, collection / "schema.json", "is missing")


def _require_sound_collection(folder: Path, collection: Path) -> None:
    _json(folder, collection / "schema.json")
    manifest = collection / "manifest.json"
    if not manifest.exists():
        if any(collection.glob("partitions/*/data/*.parquet")):
            raise _damaged(folder, manifest, "is missing")
        return
    for file in _listed_files(folder, manifest):
        reason = _parquet_problem(file)
        if reason:
            raise _damaged(folder, file, reason)


def _listed_files(folder: Path, manifest: Path) -> Iterator[Path]:
    partitions = _json(folder, manifest).get("partitions")
    if not isinstance(partitions, dict) or not all(isinstance(files, dict) for files in partitions.values()):
        raise _damaged(folder, manifest, "lists no partitions")
    for name, files in partitions.items():
        for kind in ("data_files", "delta_files"):
            for path in files.get(kind, ()):
                yield manifest.parent / "partitions" / name / path.replace("\\", "/")


def _parquet_problem(file: Path) -> str:
    """What is wrong with a file, as far as its ends tell; empty when nothing is."""
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, 2)
            if size < MIN_PARQUET_BYTES:
                return f"has {size} bytes"
            opened.seek(0)
            first = opened.read(len(PARQUET_MAGIC))
            opened.seek(-len(PARQUET_MAGIC), 2)
            return "" if first == opened.read() == PARQUET_MAGIC else "is cut short or overwritten"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _json(folder: Path, path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(folder, path, f"cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise _damaged(folder, path, "is no JSON object")
    return found


def _damaged(folder: Path, file: Path, reason: str) -> StoreError:
    return StoreError(
        f"the store in {folder.parent} is damaged: {file.relative_to(folder)} {reason}; nothing was deleted. Restore "
        "the folder from a copy, or move it and documents.sqlite away and add the documents again"
    )
