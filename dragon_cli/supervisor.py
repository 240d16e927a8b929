"""The process behind `dragonctl up`: starts the parts of a stack, restarts a part that ends, stops all in order."""

import asyncio
import os
import signal
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from dragon_cli.stack import PartStatus, Stack
from dragon_core.errors import DragonError
from dragon_runtime.process.tasks import end_tasks, wait_at_most

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
HEALTHY_SECONDS = 60.0
STOP_SECONDS = 20.0
STOP_ORDER = ("edge", "cloud", "triton", "link", "broker")


@dataclass(slots=True)
class _Part:
    """A command that is kept running."""

    name: str
    command: list[str]
    status: PartStatus
    process: asyncio.subprocess.Process | None = None
    task: asyncio.Task[None] | None = field(default=None)


class Supervisor:
    """Keeps the parts of one stack running until it is told to stop."""

    def __init__(self, stack: Stack, lock_descriptor: int) -> None:
        self._stack, self._lock = stack, lock_descriptor
        self._is_stopping = False
        self._parts = {
            name: _Part(name, command, PartStatus(name=name, pid=None, is_running=False, num_restarts=0, since=0.0))
            for name, command in stack.plan()["commands"].items()
        }

    async def run(self, stopped: asyncio.Event) -> None:
        """Start everything, wait for `stopped`, end everything."""
        for part in self._parts.values():
            part.task = asyncio.create_task(self._keep(part), name=part.name)
        await stopped.wait()
        self._is_stopping = True
        for name in STOP_ORDER:
            if name in self._parts:
                await self._stop(self._parts[name])

    async def _keep(self, part: _Part) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            started = time.monotonic()
            code = await self._run_once(part)
            if self._is_stopping:
                return
            if time.monotonic() - started > HEALTHY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            problem = f"ended with {code}: {_last_line(self._stack.log_path(part.name))}"
            self._note(part, is_running=False, pid=None, num_restarts=part.status.num_restarts + 1, problem=problem)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)

    async def _run_once(self, part: _Part) -> int:
        with self._stack.log_path(part.name).open("ab") as log:
            part.process = await asyncio.create_subprocess_exec(
                *part.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._lock,),
                env={**os.environ, "OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1"},
            )
        self._note(part, is_running=True, pid=part.process.pid)
        return await part.process.wait()

    async def _stop(self, part: _Part) -> None:
        process, task = part.process, part.task
        if process is not None and process.returncode is None:
            process.terminate()
            if not await wait_at_most(process.wait(), STOP_SECONDS):
                process.kill()
                await process.wait()
        if task is not None:
            await end_tasks([task])
        self._note(part, is_running=False, pid=None)

    def _note(self, part: _Part, **changes: object) -> None:
        part.status = replace(part.status, since=time.time(), **changes)  # type: ignore[arg-type]
        self._stack.write_status([each.status for each in self._parts.values()])


def _last_line(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
        lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "no output"


async def _run(stack: Stack, lock_descriptor: int) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await Supervisor(stack, lock_descriptor).run(stopped)


def main(folder: str) -> int:
    """Run the stack in `folder`; returns the exit code."""
    stack = Stack(Path(folder))
    try:
        with stack.locked() as descriptor:
            asyncio.run(_run(stack, descriptor))
    except DragonError as error:
        sys.stderr.write(f"supervisor: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
