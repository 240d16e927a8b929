"""`python -m dragon_runtime.models`: the first step of a container, which puts a model where the next step loads it."""

import argparse
import asyncio
import logging
import os
import re
import socket
import sys
from pathlib import Path

from pydantic import ValidationError

from dragon_core.errors import DragonError, ModelError, ModelFault, OurError
from dragon_runtime.models.fetching import FetchError, FetchReason, ProgressLog
from dragon_runtime.models.object_store import SCHEME as OBJECT_STORE
from dragon_runtime.models.object_store import signed_address
from dragon_runtime.models.resolving import require_digest, resolve_model
from dragon_runtime.models.termination import leave_word
from dragon_runtime.process.logs import SafeToWrite
from dragon_runtime.redaction import redacted
from dragon_runtime.settings.groups import ModelSettings, read_secret

logger = logging.getLogger(__name__)

LINK = "model.gguf"
TOKEN_VARIABLE = "MODEL_TOKEN"  # noqa: S105 - a name
HUB = "https://huggingface.co"
GGUF_MAGIC = b"GGUF"
HUB_ADDRESS = re.compile(r"hf://(?P<repository>[^/@]+/[^/@]+)/(?P<file>[^@]+)(?:@(?P<revision>[^@]+))?")
_REASONS = {ModelFault.UNREADABLE: "Unreadable", ModelFault.OTHER_DIGEST: FetchReason.DIGEST_MISMATCH.value}
DIGEST_NAME = re.compile(r"[0-9a-f]{64}\.gguf")


def main() -> None:
    """Put a model into a folder as model.gguf: fetched and checked, or a link to a file on a mounted volume."""
    given = _arguments()
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(SafeToWrite())
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    # It logs addresses, and those it is redirected to may carry credentials.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        target = _model(given)
        _link(given.folder, target)
    except (DragonError, ValidationError, OSError) as error:
        said = redacted(_said(error))
        leave_word(f"{reason_of(error)}: {said}")
        sys.exit(f"models: {said}")
    logger.info("%s is %s", given.folder / LINK, target)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dragon_runtime.models", description=main.__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--url",
        help="of the GGUF file: https://, http://, hf://ORG/REPO/FILE[@REVISION], oci://HOST/REPOSITORY "
        "or s3://BUCKET/KEY[?endpoint=https://HOST][&region=REGION]",
    )
    source.add_argument("--path", type=Path, help="of the GGUF file, on a volume that the next step has there too")
    parser.add_argument("--sha256", help="digest of the file; needed with --url")
    parser.add_argument("--folder", type=Path, required=True, help="it is kept there; model.gguf becomes a link to it")
    parser.add_argument(
        "--token-file",
        type=Path,
        help="with a bearer token for the address (oci://: USER:PASSWORD; s3://: ACCESS_KEY_ID:SECRET_ACCESS_KEY); "
        f"else the variable {TOKEN_VARIABLE}",
    )
    return parser.parse_args()


def _model(given: argparse.Namespace) -> Path:
    """The file that model.gguf is to be."""
    if given.path is not None:
        path: Path = given.path.absolute()
        _require_gguf(path)
        if given.sha256 is not None:
            logger.info("checking %s", path)
        asyncio.run(resolve_model(ModelSettings(path=path, sha256=given.sha256), given.folder))
        return path
    url, token = address_of(given.url), _token(given.token_file)
    if url.startswith(OBJECT_STORE):
        url, token = signed_address(url, token), None
    settings = ModelSettings(url=url, sha256=given.sha256)
    target = given.folder / f"{settings.sha256}.gguf"
    _drop_damaged(target, str(settings.sha256))
    _drop_unused(given.folder, target)
    return asyncio.run(resolve_model(settings, given.folder, token=token, progress=ProgressLog("the model")))


def address_of(uri: str) -> str:
    """The address that a model is fetched from: that of the hub for `hf://`.

    Raises:
        ModelError: it is no such address.
    """
    if not uri.startswith("hf://"):
        return uri
    found = HUB_ADDRESS.fullmatch(uri)
    if found is None or ".." in uri.split("/"):
        raise ModelError(
            f"{redacted(uri)} is no address on the hub: write hf://ORGANISATION/REPOSITORY/FILE[@REVISION]"
        )
    return f"{HUB}/{found['repository']}/resolve/{found['revision'] or 'main'}/{found['file']}"


def _token(path: Path | None) -> str | None:
    if path is not None:
        return read_secret(path, key="--token-file").get_secret_value()
    return os.environ.get(TOKEN_VARIABLE) or None


def _require_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            found = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}; is it on the volume?") from error
    if found != GGUF_MAGIC:
        raise ModelError(f"{path} is no GGUF file: it does not begin with {GGUF_MAGIC.decode()}")


def _drop_damaged(target: Path, digest: str) -> None:
    """A model that is there already is used as it is only when it is right."""
    if not target.exists():
        return
    try:
        require_digest(target, digest)
    except ModelError as error:
        logger.warning("%s; it is fetched again", error)
        target.unlink()
    else:
        logger.info("%s is there and right", target)


def _drop_unused(folder: Path, target: Path) -> None:
    """A volume holds the model that is in use and the one that follows, not all there ever were."""
    in_use = (folder / LINK).resolve()
    for file in folder.glob("*.gguf"):
        if DIGEST_NAME.fullmatch(file.name) and file.resolve() not in (in_use, target.resolve()):
            logger.info("removing %s, which is not used any more", file)
            file.unlink(missing_ok=True)


def _link(folder: Path, target: Path) -> None:
    """Replaced in one step: who loads model.gguf meanwhile gets the old model or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / f"{LINK}.{socket.gethostname()}-{os.getpid()}.part"
    link.unlink(missing_ok=True)
    link.symlink_to(target.name if target.parent == folder else target)
    link.replace(folder / LINK)


def _said(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problems = (f"--{'.'.join(map(str, each['loc'])) or 'url'}: {each['msg']}" for each in error.errors())
        return "; ".join(problems)
    return str(error)


def reason_of(error: Exception) -> str:
    """One of a finite list: those of `FetchReason`, and what is wrong with a file or an argument."""
    cause = error.__cause__
    if isinstance(cause, FetchError):
        return cause.reason.value
    if isinstance(error, ModelError):
        return _REASONS[error.fault]
    return "InvalidArgument" if isinstance(error, ValidationError | OurError) else "NotWritable"


if __name__ == "__main__":
    main()
