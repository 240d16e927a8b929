"""Bring a local stack up and wait until it answers, telling the user what it is doing."""

import asyncio
import os
import subprocess
import sys
import time

from rich.console import Console

from dragon_cli.api_client import ApiClient
from dragon_cli.stack import Stack, StackOptions, configure
from dragon_core.errors import OurError, SettingsError

READY_SECONDS = 180.0
MAX_RESTARTS = 3
PARTS_SHOWN = {"broker": "broker", "link": "slow link", "cloud": "cloud peer", "edge": "edge daemon"}


def start(stack: Stack, options: StackOptions) -> None:
    """Configure a stack and start its supervisor in the background.

    Raises:
        SettingsError: it runs already, or an option cannot be met.
    """
    if stack.is_running:
        raise SettingsError(f"the stack in {stack.folder} runs already; `dragonctl down` stops it")
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


async def wait_until_ready(stack: Stack, console: Console) -> None:
    """Return once the device answers and hears the cloud.

    Raises:
        OurError: a part keeps ending, or it takes too long; says which part and where its log is.
    """
    deadline = time.monotonic() + READY_SECONDS
    async with ApiClient(stack.plan()["api_url"]) as client:
        with console.status("starting") as status:
            while True:
                waiting = _waiting_for(stack, await client.readiness())
                if not waiting:
                    return
                status.update(f"waiting for {waiting}")
                if time.monotonic() > deadline:
                    raise OurError(f"after {READY_SECONDS:.0f} s still waiting for {waiting}; see `dragonctl logs`")
                await asyncio.sleep(0.1)


def _waiting_for(stack: Stack, readiness: dict[str, object] | None) -> str:
    """What is not there yet, in words; empty when everything is."""
    for part in stack.parts():
        if part.num_restarts >= MAX_RESTARTS:
            log = stack.log_path(part.name)
            raise OurError(f"the {PARTS_SHOWN[part.name]} does not stay up: {part.problem} (all of it: {log})")
    if readiness is None:
        return "the edge daemon (it loads its models)"
    checks = readiness["checks"]
    assert isinstance(checks, dict)  # noqa: S101 - the schema of /readyz
    missing = [f"{name}: {check['message']}" for name, check in checks.items() if not check["ready"]]
    return "; ".join(missing)
