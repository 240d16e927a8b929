"""How a daemon starts and stops: settings, logging, signals, and errors as one line each."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dragon_core.errors import DragonError, shown_lines
from dragon_runtime.process.logs import set_up_logging
from dragon_runtime.redaction import redacted
from dragon_runtime.settings import LogSettings, SettingsGroup, load_settings

Loaded = TypeVar("Loaded", bound=SettingsGroup)


def run_daemon(
    program: str,
    cls: type[Loaded],
    run: Callable[[Loaded, asyncio.Event], Awaitable[None]],
    *,
    settings_path: Path | None,
    overrides: Mapping[str, Any],
    log_of: Callable[[Loaded], LogSettings],
) -> int:
    """Run a daemon until SIGTERM or SIGINT; returns the exit code. A user's mistake is one line, not a trace."""
    try:
        settings = load_settings(cls, settings_path, overrides)
        set_up_logging(log_of(settings))
        asyncio.run(_run_until_signal(lambda stopped: run(settings, stopped)))
    except DragonError as error:
        sys.stderr.write(f"{program}: {shown_lines(redacted(str(error)))}\n")
        return 1
    return 0


async def _run_until_signal(run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await run(stopped)
