"""Shared by all commands: options with one name and meaning, one way to reach a device, errors as one line."""

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from dragon_cli.api_client import ApiClient
from dragon_cli.stack import DEFAULT_API_PORT, DEFAULT_FOLDER, Stack
from dragon_core.errors import DragonError, SettingsError, shown_lines
from dragon_runtime.redaction import redacted
from dragon_runtime.settings.groups import read_secret

Folder = Annotated[
    Path,
    typer.Option("--folder", envvar="DRAGONCTL_FOLDER", help="Folder of the stack.", show_default="in the user's data"),
]
ApiUrl = Annotated[
    str | None,
    typer.Option("--url", envvar="DRAGONCTL_URL", help="Address of a device's API; default: the local stack."),
]
ApiKey = Annotated[
    Path | None,
    typer.Option("--api-key-file", envvar="DRAGONCTL_API_KEY_FILE", help="File with the API key."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's work. A user's mistake ends in one line and exit code 1, an interrupt in exit code 130."""
    try:
        return asyncio.run(work)
    except (DragonError, OSError) as error:  # a file or folder that cannot be used is named in the system's own error
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(error: DragonError | OSError) -> NoReturn:
    """One line on standard error, exit code 1."""
    typer.echo(f"dragonctl: {shown_lines(redacted(str(error)))}", err=True)
    raise typer.Exit(1) from error


def connect(url: str | None, api_key_file: Path | None) -> ApiClient:
    """The device at `url`, or that of the local stack.

    Raises:
        SettingsError: the key cannot be read.
    """
    key = None if api_key_file is None else read_secret(api_key_file, key="--api-key-file").get_secret_value()
    return ApiClient(url or _local_url(), api_key=key)


def _local_url() -> str:
    stack = Stack(Path(os.environ.get("DRAGONCTL_FOLDER") or DEFAULT_FOLDER))
    try:
        return str(stack.plan()["api_url"])
    except SettingsError:
        return f"http://127.0.0.1:{DEFAULT_API_PORT}"
