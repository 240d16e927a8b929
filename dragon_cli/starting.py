"""Start a local stack, wait until it is ready, and show the user the progress."""

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from dragon_cli.api_client import ApiClient
from dragon_cli.configuring import configure, is_address, require_digest
from dragon_cli.stack import Stack, StackOptions
from dragon_core.errors import OurError, SettingsError
from dragon_runtime.models.resolving import resolve_model
from dragon_runtime.settings import ModelSettings

READY_SECONDS = 180.0
"""Longest silence in the logs while waiting. Many public documents take longer in total, but log their progress."""
SUPERVISOR_SECONDS = 20.0
MAX_RESTARTS = 3
PARTS_SHOWN = {
    "broker": "broker",
    "link": "slow link",
    "triton": "Triton server",
    "cloud": "cloud peer",
    "edge": "edge daemon",
}


def start(stack: Stack, options: StackOptions) -> None:
    """Configure a stack and start its supervisor in the background.

    Raises:
        SettingsError: the stack is already running, or an option cannot be met.
    """
    if stack.is_running:
        raise SettingsError(f"the stack in {stack.folder} is already running; stop it with `dragonctl down`")
    configure(stack, options)
    stack.status_path.unlink(missing_ok=True)
    with stack.log_path("supervisor").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "dragon_cli.supervisor", str(stack.folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=dict(os.environ),
        )


async def with_fetched_model(options: StackOptions, folder: Path, console: Console) -> StackOptions:
    """The options with a model file: a model given by address is downloaded once into `folder`, for both ends.

    Raises:
        SettingsError: its digest is missing. ModelError: it cannot be fetched, or has another digest.
    """
    require_digest(options)
    if options.model is None or not is_address(options.model):
        return options
    settings = ModelSettings(url=options.model, sha256=options.model_sha256)
    columns = (TextColumn("fetching the model"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        path = await resolve_model(
            settings, folder, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
    return replace(options, model=str(path))


async def wait_until_ready(stack: Stack, console: Console) -> None:
    """Return once the device is ready and connected to the cloud.

    Raises:
        OurError: a part keeps stopping, or nothing happens for too long; names the part and its log.
    """
    started = changed = time.monotonic()
    num_logged = 0
    async with ApiClient(stack.plan()["api_url"]) as client:
        with console.status("starting") as status:
            while waiting := _waiting_for(stack, await client.readiness()):
                status.update(f"waiting for {escape(waiting)}")
                now = time.monotonic()
                if not stack.is_running and now > started + SUPERVISOR_SECONDS:
                    raise OurError(f"the stack ended while it started; see {stack.log_path('supervisor')}")
                if num_logged != (num_logged := _num_logged_bytes(stack)):
                    changed = now
                if now > changed + READY_SECONDS:
                    raise OurError(f"after {now - started:.0f} s still waiting for {waiting}; see `dragonctl logs`")
                await asyncio.sleep(0.1)


def _num_logged_bytes(stack: Stack) -> int:
    return sum(path.stat().st_size for path in stack.log_path("any").parent.glob("*.log"))


def _waiting_for(stack: Stack, readiness: dict[str, object] | None) -> str:
    """The parts that are not ready yet, in words; empty if all are."""
    for part in stack.parts():
        if part.num_restarts >= MAX_RESTARTS:
            log = stack.log_path(part.name)
            raise OurError(f"the {PARTS_SHOWN[part.name]} keeps stopping: {part.problem} (full log: {log})")
    if readiness is None:
        return "the edge daemon (it loads its models)"
    checks = readiness["checks"]
    assert isinstance(checks, dict)  # noqa: S101 - the schema of /readyz
    missing = [f"{name}: {check['message']}" for name, check in checks.items() if not check["ready"]]
    return "; ".join(missing)
