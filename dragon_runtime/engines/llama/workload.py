"""What all sessions want of an engine's thread, behind the one lock that everybody takes: the thread, the event loop,
and whoever submits commands.

A batch that nobody needs any more is aborted: its sessions were closed, or the targets took another path.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from dragon_core.types import Command
from dragon_runtime.engines.llama.batches import Answer, Running
from dragon_runtime.engines.llama.deliveries import Deliveries
from dragon_runtime.engines.llama.memory import LlamaSequences
from dragon_runtime.engines.llama.session import LlamaSession

QUIET_PART, GATHERING_PART = 0.04, 0.15
"""How long to wait for sessions that have nothing to decode yet, in parts of a step: while others still get something,
and at most."""


@dataclass(frozen=True, slots=True)
class Released:
    """A session that was closed. `done` when its sequences are free again."""

    session: LlamaSession
    done: "asyncio.Future[None]"


@dataclass(frozen=True, slots=True)
class Work:
    """What one turn of the thread has to do: free, deliver what was made before it was asked for, and decode for."""

    released: Sequence[Released]
    made: Sequence[Answer]
    sessions: Sequence[LlamaSession]


class Workload:
    """The sessions and what they submitted. Safe from every thread; of `memory` only `abort` is called."""

    def __init__(self, memory: LlamaSequences, deliveries: Deliveries) -> None:
        self._memory, self._deliveries = memory, deliveries
        self._changed = threading.Condition()
        self._sessions: list[LlamaSession] = []
        self._released: deque[Released] = deque()
        self._num_submits = 0
        self._is_stopping = False
        self._failure: Exception | None = None

    @property
    def failure(self) -> Exception | None:
        """Why there is no thread any more; None while there is."""
        return self._failure

    @property
    def is_busy(self) -> bool:
        """Whether there is something to do."""
        with self._changed:
            return self._has_work()

    @property
    def problem(self) -> str | None:
        """What is left here of a session while there is none."""
        with self._changed:
            if self._released:
                return f"{len(self._released)} sessions wait for their sequences to be freed"
            for session in self._sessions:
                return (
                    f"a session that is over is still served: {session.num_waiting} commands of it wait, "
                    f"{len(session.submitted.running)} of its feeds run, "
                    f"it has {session.decoding.sequences.num_branches} branches"
                )
        return None

    def add(self, session: LlamaSession) -> None:
        """Prefill a session, and decode for it from then on."""
        with self._changed:
            self._sessions.append(session)
            self._changed.notify()

    def submit(self, session: LlamaSession, commands: Sequence[Command]) -> None:
        """Hand commands of a session to the thread."""
        with self._changed:
            session.submitted.inbox.extend(commands)
            self._num_submits += 1
            if session.submitted.running:
                session.submitted.give_up(commands)
                self._abort_unwanted()
            self._deliveries.wake(self._changed)

    def release(self, released: Released) -> bool:
        """Have the thread forget a session and free its sequences; False when there is no thread to do it."""
        with self._changed:
            if self._failure is not None:
                self._forget(released.session)
                return False
            self._released.append(released)
            self._abort_unwanted()
            self._changed.notify()
            return True

    def stop(self) -> None:
        """Have the thread end."""
        with self._changed:
            self._is_stopping = True
            self._abort_unwanted()
            self._changed.notify()

    # -- the thread's ---------------------------------------------------------------------------------------------

    def take(self, *, step_seconds: float) -> Work | None:
        """Wait for something to do and take it; None when the thread is to end.

        Steps that were made already are given out at once. `step_seconds`: of a step of all sessions.
        """
        with self._changed:
            self._changed.wait_for(self._has_work)
            made = self._take_commands()
            if made:
                return Work([], made, [])
            # One batch of all sessions costs less than two of some: those that are nearly ready are waited for.
            self._gather(step_seconds)
            if self._is_stopping:
                return None
            released = self._take_released()
            made = self._take_commands()
            return Work(released, made, [each for each in self._sessions if not each.decoding.has_failed])

    def begin(self, running: Running) -> None:
        """Know what a batch is for before it is decoded: from now on it is aborted when nobody needs it any more."""
        with self._changed:
            for session in self._sessions:
                session.submitted.running.clear()
            for session, feed in running:
                session.submitted.running.append(feed)
            for session in self._sessions:
                session.submitted.give_up(session.submitted.inbox)
            self._abort_unwanted()

    def end(self, error: Exception) -> Work:
        """The thread ends: nothing is taken from now on; returns whom to tell."""
        with self._changed:
            self._failure = error
            left = Work(tuple(self._released), [], tuple(self._sessions))
            self._released.clear()
            self._sessions.clear()
            return left

    # -- with the lock held ---------------------------------------------------------------------------------------

    def _has_work(self) -> bool:
        if self._is_stopping or self._released:
            return True
        return any(session.has_work for session in self._sessions if not session.decoding.has_failed)

    def _is_gathered(self) -> bool:
        """Whether every session has something to decode, or something else must be done first."""
        if self._is_stopping or self._released:
            return True
        return all(session.has_work for session in self._sessions if not session.decoding.has_failed)

    def _gather(self, step_seconds: float) -> None:
        """Wait for sessions as long as they keep coming."""
        quiet = max(QUIET_PART * step_seconds, self._deliveries.listener_seconds)
        given_up_at = time.perf_counter() + GATHERING_PART * step_seconds
        while not self._is_gathered() and (left := given_up_at - time.perf_counter()) > 0:
            before = self._num_submits
            self._changed.wait(min(left, quiet))
            if self._num_submits == before:
                return

    def _take_released(self) -> list[Released]:
        released = list(self._released)
        self._released.clear()
        for each in released:
            self._forget(each.session)
        return released

    def _forget(self, session: LlamaSession) -> None:
        if session in self._sessions:
            self._sessions.remove(session)

    def _take_commands(self) -> list[Answer]:
        """Queue what was submitted; returns what was made before it was asked for."""
        made: list[Answer] = []
        for session in self._sessions:
            decoding, submitted = session.decoding, session.submitted
            if decoding.has_failed:
                continue
            for command in submitted.inbox:
                decoding.sequences.enqueue(command)
            submitted.inbox.clear()
            made += [Answer(session, feed, step) for feed, step in decoding.sequences.take_made()]
        return made

    def _abort_unwanted(self) -> None:
        """Stop the running batch when no session in it needs its part, and only then."""
        released = [each.session for each in self._released]
        is_needed = any(session.submitted.running for session in self._sessions if session not in released)
        self._memory.abort(is_wanted=self._is_stopping or not is_needed)
