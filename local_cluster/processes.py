"""Processes that end with us, whatever ends us."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

STOP_SECONDS = 20.0


class Part:
    """A running program that writes to a log file of its own."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_ended_with_us(), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
            )

    def check(self) -> None:
        """Fail with the end of its log when it has ended."""
        code = self._process.poll()
        if code is not None:
            raise RuntimeError(f"{self.name} ended with {code}:\n{self.last_lines()}")

    def last_lines(self, count: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def stop(self) -> None:
        """End it and wait for that."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _ended_with_us() -> list[str]:
    """A prefix with which Linux kills the program when we are gone, even by SIGKILL."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
