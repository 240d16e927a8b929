"""What an answer from two sides costs per token, against waiting for every token and against decoding alone.

SmolLM2-135M at both ends, each in a process on a core of its own with one thread, one context of two passages a side.
Run: python -m bench.protocol --rtt-ms 0,100,300 [--quick] [--json]
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.ends import CloudEnd, EdgeEnd, End, Written
from bench.protocol_limits import SLOW_LINK_MS, Check, Run, checks, summary
from dragon_core.types import CouplingKind, WeightingRule
from dragon_runtime.answering.sides import SIDES
from dragon_runtime.embedding.choice import open_embedder
from dragon_runtime.settings import PlacementChoice
from evaluation.asking import Settings
from evaluation.factbook import Prompt, apart_prompts, shared_prompts

PLACEMENTS = (PlacementChoice.EDGE, PlacementChoice.CLOUD)
EDGE_CORE, CLOUD_CORE = 0, 1
SEED = 1
NUM_IN_STEP_TOKENS = 6
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured. Hit rates are measured apart, over `num_hit_tokens` of each workload.

    On a slow link every token of a synchronised answer takes a round trip, so that a few of them tell how long the
    others take. The paper's coupling, and links that no limit is for, are measured with the first `num_compared`
    prompts of a workload.
    """

    rtts_ms: tuple[float, ...]
    num_prompts: Mapping[WeightingRule, int] = field(
        default_factory=lambda: {WeightingRule.RELEVANCE: 4, WeightingRule.EQUAL: 2}
    )
    max_tokens: int = 48
    temperatures: tuple[float, ...] = (0.7, 0.0)
    num_hit_tokens: int = 3000
    max_hit_tokens: int = 128
    num_hit_prompts: int = 24
    num_compared: int = 2


QUICK = Plan(
    rtts_ms=(0, 300),
    num_prompts={WeightingRule.RELEVANCE: 1},
    max_tokens=16,
    num_hit_tokens=0,
    num_hit_prompts=0,
    num_compared=0,
)


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

    def __init__(self, edge: EdgeEnd) -> None:
        self._edge = edge
        self.runs: list[Run] = []

    async def measure(self, prompt: Prompt, settings: Settings) -> Written:
        """One answer at no delay, without a row."""
        return await self._edge.answer(prompt, settings, rtt_seconds=0.0)

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
            max_tokens=settings.max_tokens,
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
            first_tokens_sha256=_digest(written.tokens[:NUM_IN_STEP_TOKENS]),
        )
        return written

    async def decode(self, prompt: Prompt, workload: str, settings: Settings, written: Written) -> None:
        """Both sides' own decoding of the answer that was just written, two rows."""
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


async def _cell(
    bench: Bench,
    plan: Plan,
    workload: str,
    prompt: Prompt,
    rule: WeightingRule,
    temperature: float,
    *,
    is_compared: bool,
) -> None:
    """All methods on one prompt, in turn at each round trip so that the machine is the same for all.

    Where there is no limit to check, only with `is_compared`; the paper's coupling on the slow link, where it matters.
    """
    ours = {
        placement: Settings(
            rule=rule, temperature=temperature, placement=placement, seed=SEED, max_tokens=plan.max_tokens
        )
        for placement in PLACEMENTS
    }
    for rtt_ms in plan.rtts_ms:
        has_limits = rtt_ms in (0, SLOW_LINK_MS)
        if not has_limits and not is_compared:
            continue
        for placement, settings in ours.items():
            written = await bench.answer(prompt, workload, "ours", settings, rtt_ms)
            is_first = placement is PlacementChoice.EDGE
            if is_first:
                max_tokens = min(plan.max_tokens, NUM_IN_STEP_TOKENS) if rtt_ms else plan.max_tokens
                in_step = replace(settings, window=1, settles_early=False, max_tokens=max_tokens)
                await bench.answer(prompt, workload, "synchronised", in_step, rtt_ms)
            if is_compared and rtt_ms == SLOW_LINK_MS and temperature > 0:
                independent = replace(settings, coupling=CouplingKind.INDEPENDENT)
                await bench.answer(prompt, workload, "paper", independent, rtt_ms)
            if rtt_ms == 0:
                await bench.decode(prompt, workload, settings, written)


async def _hit_rates(
    bench: Bench, plan: Plan, workload: str, prompts: Sequence[Prompt], *, on_tokens: Callable[[int], None]
) -> Run:
    """How often each side's guess was the token, over many answers at no delay."""
    hits = dict.fromkeys(SIDES.values(), 0.0)
    num_tokens = num_answers = 0
    while num_tokens < plan.num_hit_tokens:
        prompt = prompts[num_answers % len(prompts)]
        settings = Settings(
            rule=WeightingRule.RELEVANCE,
            temperature=0.7,
            placement=PLACEMENTS[num_answers % 2],
            seed=SEED + 1 + num_answers,
            max_tokens=plan.max_hit_tokens,
        )
        written = await bench.measure(prompt, settings)
        for peer, rate in written.report.hit_rate.items():
            hits[SIDES[peer]] += (rate or 0.0) * written.report.num_tokens
        num_tokens += written.report.num_tokens
        num_answers += 1
        on_tokens(written.report.num_tokens)
    return {
        "workload": workload,
        "weighting": WeightingRule.RELEVANCE,
        "temperature": 0.7,
        "num_tokens": num_tokens,
        "num_answers": num_answers,
        "hit_rate": {side: count / num_tokens for side, count in hits.items()},
    }


async def measure(plan: Plan, address: Path, progress: Progress) -> tuple[list[Run], list[Run]]:
    """The runs and the hit rates of a plan."""
    edge = EdgeEnd(await End.start(core=EDGE_CORE), address)
    embedder = await open_embedder("bundled://all-minilm-l6-v2")
    makers = {"apart": apart_prompts, "shared": shared_prompts}
    cells = len(makers) * len(plan.temperatures) * sum(plan.num_prompts.values())
    task = progress.add_task("prompts", total=cells)
    bench = Bench(edge)
    hit_rates = []
    for workload, prompts_of_workload in makers.items():
        num_needed = max(*plan.num_prompts.values(), plan.num_hit_prompts)
        prompts = await prompts_of_workload(embedder, num_prompts=num_needed)
        await bench.measure(prompts[0], Settings(rule=WeightingRule.RELEVANCE, temperature=0.7, max_tokens=8))
        for rule, num_prompts in plan.num_prompts.items():
            for number, prompt in enumerate(prompts[:num_prompts]):
                is_compared = rule is WeightingRule.RELEVANCE and number < plan.num_compared
                for temperature in plan.temperatures:
                    await _cell(bench, plan, workload, prompt, rule, temperature, is_compared=is_compared)
                    progress.advance(task)
        if plan.num_hit_tokens:
            hits = progress.add_task(f"hit rates, {workload}", total=plan.num_hit_tokens)
            on_tokens = partial(progress.advance, hits)
            hit_rates.append(await _hit_rates(bench, plan, workload, prompts, on_tokens=on_tokens))
    return bench.runs, hit_rates


def _digest(tokens: tuple[int, ...]) -> str:
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()


def _show(console: Console, runs: list[Run], hit_rates: list[Run], found: list[Check]) -> None:
    console.print(summary(runs))
    for row in hit_rates:
        rates = ", ".join(f"{side} {rate:.2f}" for side, rate in row["hit_rate"].items())
        console.print(f"hit rates, {row['workload']}: {rates} (over {row['num_tokens']} tokens, relevance, T=0.7)")
    for check in found:
        console.print(
            f"{'met    ' if check.met else 'NOT MET'} {check.measured:9.3f} <= {check.limit:<7g} {check.name}"
        )


def main() -> int:
    """Command line; 1 when a limit is not met."""
    parser = argparse.ArgumentParser(prog="python -m bench.protocol", description=__doc__)
    parser.add_argument(
        "--rtt-ms",
        type=lambda text: tuple(float(each) for each in text.split(",")),
        default=(0.0, 100.0, 300.0),
        help="round trips, comma separated (0,100,300)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one prompt, short answers, 0 and 300 ms, without the paper's coupling"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else Plan(rtts_ms=arguments.rtt_ms)
    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with cloud_process(CLOUD_CORE) as address, Progress(*columns, console=Console(stderr=True)) as progress:
        runs, hit_rates = asyncio.run(measure(plan, address, progress))
    found = checks(runs)
    if arguments.json:
        report = {"runs": runs, "hit_rates": hit_rates, "checks": [asdict(check) for check in found]}
        json.dump({**report, "seconds": time.monotonic() - started}, sys.stdout)
        print()
    else:
        _show(Console(), runs, hit_rates, found)
    return 0 if all(check.met for check in found) else 1


if __name__ == "__main__":
    sys.exit(main())
