"""What a Triton server between the session and its engine costs: per step, in throughput, and while a prompt arrives.

SmolLM2-135M with one thread both times; the engine alone and the server take turns, so that the machine is the same for
both. Sessions feed what they draft, as an answer does, and the model on Triton makes that step while the last one is
on its way; `undrafted` is the overhead of a step that it could not expect. Then 2,000 sessions of a tiny model, half of
them left by clients that are killed: nothing of them may remain.
Run: python -m bench.triton [--json] [--quick]
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.ends import OwnDecoding
from dragon_core.types import BranchId, Feed, Step, WeightingRule
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.engines.publishing import drafted_token
from dragon_runtime.engines.triton.client import TritonClient
from dragon_runtime.engines.triton.engine import TritonEngine
from dragon_runtime.interfaces import Engine, EngineRequest, EngineSession
from dragon_runtime.models import bundled_model
from tests.contracts.engine_sessions import request_of
from tests.fakes.tiny_model import write_tiny_model
from tests.servers.triton_process import TritonProcess

SIZES = (1, 8, 32)
PROMPT_TOKENS, LONG_PROMPT_TOKENS = 48, 4000
CONTEXT_LENGTH = 4352
NUM_STEPS = {1: 24, 8: 12, 32: 8}
"""Of one turn: so few that the machine is the same for both."""
NUM_TURNS = {1: 15, 8: 9, 32: 9}
STEPS_OF_TURN = 8
QUIET_SECONDS = 0.05
"""For the step that the model has begun when a turn ends: it must not slow down the other's."""
NUM_CLIENTS, SESSIONS_PER_CLIENT = 20, 50
LIMITS = {"p50": 1.0, "p99": 3.0, "throughput": 0.9, "stall": 2.0}


class Stepped:
    """One session that is fed a token whenever it has answered: its draft, or any where the engine knows no seed."""

    def __init__(self, request: EngineRequest) -> None:
        self.times: list[float] = []
        """Of the answers."""
        self._request = request
        self._session: EngineSession | None = None
        self._num_wanted = self._num_fed = 0
        self._token: tuple[int, ...] = ()
        self._done = asyncio.Event()

    @classmethod
    async def open(cls, engine: Engine, request: EngineRequest) -> "Stepped":
        """Prefill."""
        stepped = cls(request)
        stepped._session = await engine.open(request, on_step=stepped._on_step, on_failure=stepped._on_failure)
        return stepped

    async def run(self, num_steps: int) -> None:
        """One step, which may have been made while nobody looked, and so many after it, one after the other."""
        self._num_wanted, self.times = 1 + num_steps, []
        self._done.clear()
        self._feed()
        await self._done.wait()

    def start(self) -> None:
        """Step until `close`."""
        self._num_wanted, self.times = sys.maxsize, []
        self._feed()

    def _feed(self) -> None:
        assert self._session is not None
        self._session.submit([Feed(self._num_fed, BranchId(0), self._token)])

    def _on_step(self, ticket: int, step: Step) -> None:
        self.times.append(time.perf_counter())
        draft = drafted_token(self._request, ticket, step)
        self._token = (100 + ticket % 1000 if draft is None else draft,)
        self._num_fed += 1
        if len(self.times) < self._num_wanted:
            self._feed()
        else:
            self._done.set()

    def _on_failure(self, error: Exception) -> None:
        raise SystemExit(f"a session failed: {error}")

    async def close(self) -> None:
        assert self._session is not None
        await self._session.close()


def prompt(engine: Engine, length: int, *, max_tokens: int, seed: int = 0, is_drafted: bool = True) -> EngineRequest:
    """One context, no bare prompt, one branch."""
    return request_of(
        engine,
        length,
        seed=seed,
        rule=WeightingRule.RELEVANCE,
        max_tokens=max_tokens,
        draft_seed=seed if is_drafted else None,
    )


async def step_overhead(embedded: Engine, triton: Engine, *, num_turns: int, is_drafted: bool) -> dict[str, float]:
    """One session on each, a few steps here and a few there in turn; the difference of the quantiles."""
    sessions = [
        await Stepped.open(each, prompt(each, PROMPT_TOKENS, max_tokens=1000, is_drafted=is_drafted))
        for each in (embedded, triton)
    ]
    seconds: list[list[float]] = [[], []]
    for _ in range(num_turns):
        for session, taken in zip(sessions, seconds, strict=True):
            await session.run(STEPS_OF_TURN)
            taken.extend(np.diff(session.times).tolist())
            await asyncio.sleep(QUIET_SECONDS)
    for session in sessions:
        await session.close()
    ours, theirs = (np.quantile(taken, (0.5, 0.99)) for taken in seconds)
    p50, p99 = (1000 * (theirs - ours)).tolist()
    return {"p50": p50, "p99": p99}


async def throughput(raw: OwnDecoding, triton: Engine, size: int) -> float:
    """Tokens per second through Triton over those of the engine alone, in the median of turns of equal positions."""
    num_steps = NUM_STEPS[size]
    requests = [prompt(triton, PROMPT_TOKENS, max_tokens=1000, seed=at) for at in range(size)]
    await asyncio.to_thread(raw.prefill_all, requests)
    sessions = [await Stepped.open(triton, request) for request in requests]

    def raw_steps(turn: int) -> float:
        started = time.perf_counter()
        for at in range(num_steps):
            raw.step_all(requests, range(100, 100 + size), turn * num_steps + at)
        return time.perf_counter() - started

    async def triton_steps() -> float:
        await asyncio.gather(*(session.run(num_steps) for session in sessions))
        return max(session.times[-1] for session in sessions) - min(session.times[0] for session in sessions)

    ratios = []
    for turn in range(NUM_TURNS[size]):
        alone = await asyncio.to_thread(raw_steps, turn)
        ratios.append(alone / await triton_steps())
        await asyncio.sleep(QUIET_SECONDS * size)
    for session in sessions:
        await session.close()
    return statistics.median(ratios)


async def stall(triton: Engine, size: int) -> float:
    """p99 of the time between tokens over its median, while a long prompt is being prefilled for one more session."""
    sessions = [
        await Stepped.open(triton, prompt(triton, PROMPT_TOKENS, max_tokens=1000, seed=at)) for at in range(size)
    ]
    for session in sessions:
        session.start()
    await asyncio.sleep(1.0)
    started = time.perf_counter()
    late = await Stepped.open(triton, prompt(triton, LONG_PROMPT_TOKENS, max_tokens=8, seed=99))
    ended = time.perf_counter()
    gaps = [
        after - before
        for session in sessions
        for before, after in zip(session.times, session.times[1:], strict=False)
        if started <= before and after <= ended
    ]
    for session in (*sessions, late):
        await session.close()
    return float(np.quantile(gaps, 0.99) / np.median(gaps))


def _resident_bytes(pids: Sequence[int]) -> int:
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * 4096


async def leaks(folder: Path, *, num_clients: int) -> dict[str, float]:
    """What is left of sessions that were closed and of as many whose clients were killed."""
    model = write_tiny_model(folder / "tiny.gguf")
    given = {"causal_lm": {"model_path": model, "context_length": 256, "num_sequences": 64, "num_threads": 1}}
    server = TritonProcess(folder, given)
    await asyncio.to_thread(server.start)
    try:
        client = TritonClient(server.settings)
        engine = await TritonEngine.connect(client)
        found: dict[str, float] = {}
        before = (0, 0)
        for number in range(num_clients):
            for seed in range(SESSIONS_PER_CLIENT):
                session = await Stepped.open(engine, prompt(engine, 9, max_tokens=64, seed=seed))
                await session.run(2)
                await session.close()
            victim = await asyncio.to_thread(server.client_with_open_sessions, SESSIONS_PER_CLIENT, num_tokens=8)
            victim.kill()
            victim.wait()
            for _ in range(200):
                if server.metric("dragon_causal_lm_sequences_in_use") == 0:
                    break
                await asyncio.sleep(0.05)
            sys.stderr.write(f"client {number + 1} of {num_clients}\n")
            now = (_resident_bytes([server.pid, *server.model_processes()]), server.shared_memory())
            if number == num_clients // 4:  # pools and caches have grown to what they need
                before = now
        found["num_sessions"] = 2 * num_clients * SESSIONS_PER_CLIENT
        found["leaked_sequences"] = server.metric("dragon_causal_lm_sequences_in_use")
        found["leaked_resident_bytes"] = now[0] - before[0]
        found["leaked_shared_memory_bytes"] = now[1] - before[1]
        found["server_crashes"] = 0 if server.is_running else 1
        await client.close()
        return found
    finally:
        server.stop()


async def measure(folder: Path, *, is_quick: bool) -> dict[str, object]:
    """Everything, in one run."""
    given = {"causal_lm": {"context_length": CONTEXT_LENGTH, "num_sequences": max(SIZES) + 1, "num_threads": 1}}
    (folder / "bundled").mkdir()
    server = TritonProcess(folder / "bundled", given)
    await asyncio.to_thread(server.start, "causal_lm")
    try:
        client = TritonClient(server.settings)
        triton = await TritonEngine.connect(client)
        embedded = await LlamaEngine.load(
            bundled_model(), context_length=CONTEXT_LENGTH, num_sequences=1, num_threads=1
        )
        num_turns = 15 if is_quick else 50
        overhead, undrafted = [
            await step_overhead(embedded, triton, num_turns=num_turns, is_drafted=is_drafted)
            for is_drafted in (True, False)
        ]
        await embedded.close()
        raw = OwnDecoding(bundled_model(), num_sequences=max(SIZES) + 1, context_length=CONTEXT_LENGTH)
        ratios = {}
        for size in SIZES:
            ratios[str(size)] = await throughput(raw, triton, size)
            sys.stderr.write(f"{size} sessions: {ratios[str(size)]:.3f} of the engine alone\n")
        stalled = await stall(triton, max(SIZES))
        await client.close()
    finally:
        server.stop()
    (folder / "tiny").mkdir()
    left = await leaks(folder / "tiny", num_clients=2 if is_quick else NUM_CLIENTS)
    return {
        "step_overhead_milliseconds": overhead,
        "undrafted_step_overhead_milliseconds": undrafted,
        "throughput_ratio": ratios,
        "token_gap_p99_over_median_in_long_prefill": stalled,
        **left,
    }


def main() -> int:
    """Command line; 1 when a limit is not met."""
    parser = argparse.ArgumentParser(prog="python -m bench.triton", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps, 200 sessions")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dragon-bench-") as folder:
        found = asyncio.run(measure(Path(folder), is_quick=arguments.quick))
    if arguments.json:
        json.dump(found, sys.stdout)
        print()
    else:
        for name, value in found.items():
            print(f"{name:<44}{value}")
    overhead, ratios = found["step_overhead_milliseconds"], found["throughput_ratio"]
    assert isinstance(overhead, dict)
    assert isinstance(ratios, dict)
    is_met = (
        overhead["p50"] <= LIMITS["p50"]
        and overhead["p99"] <= LIMITS["p99"]
        and min(ratios.values()) >= LIMITS["throughput"]
        and float(str(found["token_gap_p99_over_median_in_long_prefill"])) <= LIMITS["stall"]
        and not found["leaked_sequences"]
        and not found["server_crashes"]
    )
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
