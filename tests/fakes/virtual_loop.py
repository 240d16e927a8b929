"""An event loop whose clock stands still while anything can run, and then jumps to the next timer."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at time 0. Nothing outside of it, threads and sockets, is waited for once there is a timer."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_now = 0.0

    def time(self) -> float:
        return self._virtual_now

    def run_in_executor(self, executor: object, act: Callable[..., Any], *arguments: object) -> "asyncio.Future[Any]":
        """At once: a thread takes time that this loop does not know of."""
        done = self.create_future()
        try:
            done.set_result(act(*arguments))
        except Exception as error:  # noqa: BLE001 - as an executor does
            done.set_exception(error)
        return done

    def _run_once(self) -> None:
        if not self._ready:  # type: ignore[attr-defined]
            times = [handle.when() for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
            self._virtual_now = max(self._virtual_now, min(times, default=0.0))
        super()._run_once()  # type: ignore[misc]


def run_in_virtual_time(main: Coroutine[Any, Any, Result]) -> Result:
    """As `asyncio.run`."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
