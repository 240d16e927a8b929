"""Which commands of a session make sense, and which of its feeds still want an answer."""

import threading

from dragon_core.types import Command, Step
from dragon_runtime.engines.planned_branches import PlannedBranches
from dragon_runtime.interfaces import EngineRequest, StepListener


class Tickets:
    """Of one session, until it is closed. Has a lock: commands and answers come on threads of their own."""

    def __init__(self, request: EngineRequest, *, num_vocabulary: int, on_step: StepListener) -> None:
        self._on_step = on_step
        self._plan = PlannedBranches(
            max_branches=request.max_branches, max_tokens=request.max_tokens, num_vocabulary=num_vocabulary
        )
        self._lock = threading.Lock()
        self.is_closed = False

    def plan(self, command: Command) -> str | None:
        """Take a command; returns what is wrong with it, or None."""
        with self._lock:
            return self._plan.plan(command)

    def answer(self, ticket: int, step: Step) -> None:
        """Tell the listener, if the ticket still wants an answer."""
        with self._lock:
            is_wanted = not self.is_closed and self._plan.is_wanted(ticket)
        if is_wanted:
            self._on_step(ticket, step)

    def close(self) -> None:
        """No ticket wants an answer from now on."""
        self.is_closed = True
