"""What an answer from two sides costs per token, against waiting for every token and against decoding alone.

SmolLM2-135M at both ends, each in a process on a core of its own with one thread, one context of two passages a side.
Run: python -m bench.protocol --rtt-ms 0,100,300 [--quick] [--json]
"""

import asyncio
import hashlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.ends import CloudEnd, EdgeEnd, End, Settings, Written
from bench.factbook import Prompt
from dragon_core.types import Peer, WeightingRule

SIDES = {Peer.OPENER: "edge", Peer.OTHER: "cloud"}
RULES = (WeightingRule.RELEVANCE, WeightingRule.EQUAL)
START_SECONDS = 60.0

Run = dict[str, Any]


def _cloud_process(core: int, address: str) -> None:
    async def serve() -> None:
        await CloudEnd(await End.start(core=core)).serve(Path(address))

    asyncio.run(serve())


@contextmanager
def cloud_process(core: int) -> Iterator[Path]:
    """A cloud end in a process of its own; yields the socket it listens on once it does."""
    with tempfile.TemporaryDirectory(prefix="dragon-bench-") as folder:
        address = Path(folder) / "cloud"
        process = multiprocessing.get_context("spawn").Process(target=_cloud_process, args=(core, str(address)))
        process.start()
        try:
            given_up_at = time.monotonic() + START_SECONDS
            while not address.exists():
                if not process.is_alive() or time.monotonic() > given_up_at:
                    raise SystemExit("the cloud end did not start; its error is above")
                time.sleep(0.05)
            yield address
        finally:
            process.terminate()
            process.join()


class Bench:
    """Runs answers and collects one row per answer."""

    def __init__(self, edge: EdgeEnd, on_step: Callable[[], None]) -> None:
        self._edge, self._on_step = edge, on_step
        self.runs: list[Run] = []

    async def answer(self, prompt: Prompt, workload: str, method: str, settings: Settings, rtt_ms: float) -> Written:
        """One answer, one row."""
        written = await self._edge.answer(prompt, settings, rtt_seconds=rtt_ms / 1000)
        report = written.report
        self._add(
            prompt,
            workload,
            method,
            settings,
            rtt_ms=rtt_ms,
            coupling=settings.coupling,
            placement=SIDES[report.aggregator],
            seconds_per_token=written.seconds_per_token,
            first_token_seconds=written.first_token_seconds,
            slower_prefill_seconds=written.slower_prefill_seconds,
            hit_rate={SIDES[peer]: rate for peer, rate in report.hit_rate.items()},
            bytes_per_token={"edge_to_cloud": written.bytes_up, "cloud_to_edge": written.bytes_down},
            num_tokens=report.num_tokens,
            degraded_tokens=report.num_degraded,
            dropped_mass=report.dropped_mass_mean,
            edge_share=report.opener_share,
            tokens_sha256=_digest(written.tokens),
        )
        return written

    async def decode(self, prompt: Prompt, workload: str, settings: Settings, written: Written) -> None:
        """Both sides' own decoding of a written answer, two rows."""
        for side, seconds in zip(
            SIDES.values(), await self._edge.decode(prompt, settings, written.tokens), strict=True
        ):
            self._add(
                prompt,
                workload,
                f"{side}_decode",
                settings,
                rtt_ms=0.0,
                coupling=None,
                placement=side,
                seconds_per_token=seconds,
                first_token_seconds=None,
                hit_rate=None,
                bytes_per_token=None,
                num_tokens=len(written.tokens),
                tokens_sha256=_digest(written.tokens),
            )

    def _add(self, prompt: Prompt, workload: str, method: str, settings: Settings, **row: Any) -> None:
        self.runs.append(
            {
                "method": method,
                "workload": workload,
                "holder": prompt.holder,
                "question": prompt.question,
                "temperature": settings.temperature,
                "weighting": settings.rule,
                "seed": settings.seed,
                **row,
            }
        )
        self._on_step()


def _digest(tokens: tuple[int, ...]) -> str:
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()
