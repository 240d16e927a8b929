"""Answers on their way from an engine's thread: in order, and none that waits holds up that thread."""

import asyncio
import logging
import threading
from collections.abc import Callable

import pytest

from dragon_core.types import BranchId, Feed, Step
from dragon_runtime.engines.llama.batches import Answer
from dragon_runtime.engines.llama.deliveries import LoopDeliveries, ThreadDeliveries


class Session:
    """Remembers what was delivered, and where it was told to fail."""

    def __init__(self, told: list[object], act: Callable[[int], None] = lambda _: None) -> None:
        self.told, self._act = told, act

    def deliver(self, ticket: int, step: Step) -> None:
        self._act(ticket)
        self.told.append(ticket)

    def fail(self, error: Exception) -> None:
        self.told.append(error)


def until(may_go: threading.Event) -> Callable[[int], None]:
    """A listener that takes nothing before."""

    def act(_: int) -> None:
        assert may_go.wait(60)

    return act


def answers_of(session: Session, *tickets: int) -> list[Answer]:
    step: Step = None  # type: ignore[assignment]  # nobody looks into it
    return [Answer(session, Feed(ticket, BranchId(0), (5,)), step) for ticket in tickets]  # type: ignore[arg-type]


async def test_a_listener_elsewhere_that_is_slow_does_not_hold_up_the_engine() -> None:
    told: list[object] = []
    may_go = threading.Event()
    deliveries = ThreadDeliveries(asyncio.get_running_loop())
    deliveries.deliver(answers_of(Session(told, until(may_go)), 1, 2))
    deliveries.deliver([])
    told.append("the engine goes on")
    may_go.set()
    await asyncio.to_thread(deliveries.close)
    assert told == ["the engine goes on", 1, 2]


async def test_the_end_of_a_session_comes_after_its_answers() -> None:
    told: list[object] = []
    may_go, ended = threading.Event(), asyncio.Event()
    deliveries = ThreadDeliveries(asyncio.get_running_loop())
    deliveries.deliver(answers_of(Session(told, until(may_go)), 1, 2))
    deliveries.call(told.append, "ended")
    deliveries.call(ended.set)
    await asyncio.sleep(0)
    may_go.set()
    await ended.wait()
    assert told == [1, 2, "ended"]
    await asyncio.to_thread(deliveries.close)
    deliveries.call(told.append, "later")
    await asyncio.sleep(0)
    assert told[3:] == ["later"]


async def test_a_listener_elsewhere_that_fails_costs_its_session_only(caplog: pytest.LogCaptureFixture) -> None:
    # Two lists: the failure is told on the loop while the sending thread goes on to the next answer.
    told: dict[str, list[object]] = {"refusing": [], "other": []}
    error = RuntimeError("no way to send it")

    def refuse(_: int) -> None:
        raise error

    deliveries = ThreadDeliveries(asyncio.get_running_loop())
    with caplog.at_level(logging.ERROR):
        deliveries.deliver(answers_of(Session(told["refusing"], refuse), 1) + answers_of(Session(told["other"]), 2))
        await asyncio.to_thread(deliveries.close)
    await asyncio.sleep(0)
    assert told == {"refusing": [error], "other": [2]}
    assert caplog.messages == ["a step could not be handed over"]


async def test_listeners_on_the_loop_get_one_answer_in_each_turn() -> None:
    told: list[object] = []
    loop = asyncio.get_running_loop()
    deliveries = LoopDeliveries(loop)
    deliveries.deliver(answers_of(Session(told), 1, 2))
    loop.call_soon(told.append, "between")
    for _ in range(3):
        await asyncio.sleep(0)
    assert told == [1, "between", 2]
    deliveries.close()
