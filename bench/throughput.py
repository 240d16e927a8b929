"""What driving sessions costs beside the engine: eight answers at once, both ends of each in this process.

Sixteen sessions share one engine and one event loop over memory channels. Compared with the engine alone: the same
prompts, with softmax, mixing and cut, and nothing else. Both take turns, batch by batch: just before the sessions'
batch is decoded, the engine alone steps as many sequences, and that time is taken out of the sessions'.
Run: python -m bench.throughput [--json]. Takes about four minutes.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.ends import CONTEXT_LENGTH, OwnDecoding
from dragon_core.errors import EngineError
from dragon_core.messages import Open
from dragon_core.session.session import Session
from dragon_core.session.settings import Limits
from dragon_core.types import Step, WeightingRule
from dragon_runtime.answering.driver import SessionDriver
from dragon_runtime.answering.preparation import Preparation, Prepared
from dragon_runtime.channel.memory import memory_channel_pair
from dragon_runtime.embedding.choice import open_embedder
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.engines.llama.memory import LlamaSequences, Piece
from dragon_runtime.engines.llama.model import LlamaModel
from dragon_runtime.interfaces import Embedder, EngineRequest, FailureListener, Passage, StepListener
from dragon_runtime.models import bundled_model
from dragon_runtime.settings import ProtocolSettings
from dragon_runtime.settings.groups import WeightingSettings
from evaluation.asking import FixedPassages, Settings, request_for
from evaluation.factbook import Prompt, apart_prompts

NUM_ANSWERS = 8
NUM_SESSIONS = 2 * NUM_ANSWERS
MAX_TOKENS = 48
NUM_ROUNDS = 3
NUM_IDLE_STEPS = 24
RULE = WeightingRule.RELEVANCE
PATIENT = Limits(prefill_deadline=600.0, stall_floor=60.0)
"""All prompts are prefilled one after the other: nobody gives up meanwhile."""
THROUGHPUT_LIMIT = 0.9


@dataclass(slots=True)
class Window:
    """From when all sessions decode until the first answer ends: only here are batches full."""

    num_waiting: int = NUM_SESSIONS
    started_at: float = 0.0
    ended_at: float = 0.0
    num_steps: int = 0
    num_tokens: int = 0
    raw_seconds: float = 0.0
    num_raw_steps: int = 0

    @property
    def is_open(self) -> bool:
        return self.num_waiting == 0 and self.ended_at == 0.0

    def enter(self) -> None:
        """One more session is prefilled."""
        self.num_waiting -= 1
        if self.num_waiting == 0:
            self.started_at = time.perf_counter()

    def leave(self) -> None:
        """An answer ended."""
        self.ended_at = self.ended_at or time.perf_counter()

    @property
    def steps_per_second(self) -> float:
        """Steps that a session got, without the time that the engine alone had."""
        return self.num_steps / (self.ended_at - self.started_at - self.raw_seconds)

    @property
    def raw_steps_per_second(self) -> float:
        return self.num_raw_steps / self.raw_seconds


class RawTurns:
    """The engine alone, with the prompts of all sessions in place."""

    def __init__(self, asked: Sequence[EngineRequest]) -> None:
        self._own = OwnDecoding(bundled_model(), num_sequences=NUM_SESSIONS)
        self._own.prefill_all(asked)
        self._asked = asked

    def step(self, num_sequences: int, window: Window) -> None:
        """One batch of one token after each of so many prompts, counted."""
        self._own.forget_answers(self._asked)
        started = time.perf_counter()
        self._own.step_all(self._asked[:num_sequences], range(100, 100 + num_sequences), position=0)
        if window.is_open:
            window.raw_seconds += time.perf_counter() - started
            window.num_raw_steps += num_sequences


class AlternatingSequences(LlamaSequences):
    """Gives the engine alone its turn before each batch of steps."""

    def __init__(self, model: LlamaModel, raw: RawTurns, window: Window) -> None:
        super().__init__(model, num_sequences=NUM_SESSIONS, context_length=CONTEXT_LENGTH, num_threads=1)
        self._raw, self._window = raw, window

    def decode(self, pieces: Sequence[Piece]) -> list[NDArray[np.float32]]:
        """As the sequences do."""
        if self._window.is_open:
            self._raw.step(len(pieces), self._window)
        return super().decode(pieces)


@dataclass(slots=True)
class Blocked:
    """How long after it was due a callback ran, in milliseconds, while decodes ran."""

    late_ms: list[float] = field(default_factory=list)

    @asynccontextmanager
    async def watching(self, window: Window) -> AsyncIterator[None]:
        """Look every millisecond."""
        task = asyncio.create_task(self._watch(window), name="loop watch")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def quantiles(self) -> dict[str, float]:
        """Of all looks."""
        late = np.array(self.late_ms)
        return {"p50": float(np.median(late)), "p99": float(np.quantile(late, 0.99)), "max": float(late.max())}

    async def _watch(self, window: Window) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.001
            await asyncio.sleep(0.001)
            if window.is_open:
                self.late_ms.append(1000 * (loop.time() - due))


class End:
    """Prepares the sessions of one end; every answer has passages of its own."""

    def __init__(self, engine: LlamaEngine, embedder: Embedder, passages: Sequence[Passage], window: Window) -> None:
        retriever = FixedPassages()
        retriever.found = passages
        self._window = window
        self.preparation = Preparation(
            engine=engine,
            embedder=embedder,
            retriever=retriever,
            protocol=ProtocolSettings(weighting=WeightingSettings(rule=RULE)),
        )

    async def prepare(self, request: Open, *, on_step: StepListener, on_failure: FailureListener) -> Prepared:
        """As the preparation, counting steps."""

        def counted(ticket: int, step: Step) -> None:
            self._window.num_steps += self._window.is_open
            on_step(ticket, step)

        prepared = await self.preparation.prepare(request, on_step=counted, on_failure=on_failure)
        self._window.enter()
        return prepared


async def answer(prompt: Prompt, engine: LlamaEngine, embedder: Embedder, window: Window, *, seed: int) -> None:
    """One answer with both its ends here.

    Raises:
        EngineError: it did not end as an answer ends.
    """
    edge, cloud = [End(engine, embedder, passages, window) for passages in (prompt.edge, prompt.cloud)]
    ours, theirs = memory_channel_pair()
    settings = Settings(rule=RULE, temperature=0.7, seed=seed, max_tokens=MAX_TOKENS)
    request = request_for(edge.preparation, prompt.question, settings)
    now = asyncio.get_running_loop().time()
    session, effects = Session.open(edge.preparation.session_settings(limits=PATIENT), request, now=now)

    def count(_: object) -> None:
        window.num_tokens += window.is_open

    opener = SessionDriver(session, ours, prepare=edge.prepare, on_emit=count)
    other = SessionDriver(
        Session.await_open(cloud.preparation.session_settings(limits=PATIENT, replica="r")),
        theirs,
        prepare=cloud.prepare,
    )
    serving = asyncio.create_task(other.run(), name="other end")
    closed = await opener.run(effects)
    window.leave()
    await serving
    if closed.error or closed.report is None or closed.report.num_degraded:
        raise EngineError(f"an answer failed: {closed.error or 'degraded tokens'}")


async def driven(prompts: Sequence[Prompt], embedder: Embedder, raw: RawTurns, blocked: Blocked) -> Window:
    """Eight answers at once."""
    window = Window()
    model = LlamaModel(bundled_model())
    memory = AlternatingSequences(model, raw, window)
    engine = LlamaEngine(model, memory, num_sequences=NUM_SESSIONS)
    await engine.start()
    async with blocked.watching(window), asyncio.TaskGroup() as tasks:
        for seed, prompt in enumerate(prompts):
            tasks.create_task(answer(prompt, engine, embedder, window, seed=seed))
    await engine.close()
    return window


async def requests(prompts: Sequence[Prompt], engine: LlamaEngine, embedder: Embedder) -> list[EngineRequest]:
    """What the engine is asked for by all sessions."""
    settings = Settings(rule=RULE, temperature=0.7, max_tokens=MAX_TOKENS)
    found = []
    for prompt in prompts:
        for passages in (prompt.edge, prompt.cloud):
            preparation = End(engine, embedder, passages, Window()).preparation
            found.append(await preparation.engine_request(request_for(preparation, prompt.question, settings)))
    return found


async def idle_loop(raw: RawTurns) -> Blocked:
    """How late a loop is that has nothing to do while the engine alone decodes: what the machine itself does."""

    def steps() -> None:
        for _ in range(NUM_IDLE_STEPS):
            raw.step(NUM_SESSIONS, Window())

    blocked = Blocked()
    async with blocked.watching(Window(num_waiting=0)):
        await asyncio.to_thread(steps)
    return blocked


async def measure() -> dict[str, object]:
    """Rounds of both, in turn."""
    embedder = await open_embedder("bundled://all-minilm-l6-v2")
    prompts = await apart_prompts(embedder, num_prompts=NUM_ANSWERS)
    engine = await LlamaEngine.load(bundled_model(), context_length=CONTEXT_LENGTH, num_sequences=1, num_threads=1)
    asked = await requests(prompts, engine, embedder)
    await engine.close()
    raw = await asyncio.to_thread(RawTurns, asked)
    idle = await idle_loop(raw)
    blocked, rows = Blocked(), []
    for round_number in range(NUM_ROUNDS):
        window = await driven(prompts, embedder, raw, blocked)
        alone, driven_rate = window.raw_steps_per_second, window.steps_per_second
        rows.append({"raw_steps_per_second": alone, "steps_per_second": driven_rate, "num_tokens": window.num_tokens})
        sys.stderr.write(f"round {round_number + 1} of {NUM_ROUNDS}: {driven_rate:.0f} of {alone:.0f} steps a second\n")
    return {
        "num_sessions": NUM_SESSIONS,
        "throughput_ratio": statistics.median(row["steps_per_second"] / row["raw_steps_per_second"] for row in rows),
        "loop_late_milliseconds": blocked.quantiles(),
        "idle_loop_late_milliseconds": idle.quantiles(),
        "rounds": rows,
    }


def main() -> int:
    """Command line; 1 when the throughput is below its limit."""
    parser = argparse.ArgumentParser(prog="python -m bench.throughput", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    found = asyncio.run(measure())
    if arguments.json:
        json.dump(found, sys.stdout)
        print()
    else:
        for name, value in found.items():
            print(f"{name:<24}{value}")
    ratio = found["throughput_ratio"]
    return 0 if isinstance(ratio, float) and ratio >= THROUGHPUT_LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
