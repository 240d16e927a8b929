"""Whole answers between two drivers: what they come to over a slow or cut link, and when the user goes away."""

import asyncio
import itertools
from dataclasses import replace

import pytest

from dragon_core.messages import FinishReason
from dragon_core.session.settings import Limits
from dragon_core.types import Peer, WeightingRule
from tests.contracts.engine_pair import Way
from tests.fakes.toy_pair import ASKED, ToyPair
from tests.fakes.virtual_loop import run_in_virtual_time

WAYS = [
    Way(window=window, branches=branches, placement=placement, rtt_seconds=rtt_seconds, moves=moves)
    for window, branches, rtt_seconds in itertools.product((1, 16), (1, 3), (0.0, 0.3))
    for placement, moves in ((Peer.OPENER, ()), (Peer.OTHER, ()), (None, (4, 9, 20)))
]


@pytest.mark.parametrize("rule", WeightingRule)
def test_two_drivers_write_what_both_models_say(rule: WeightingRule) -> None:
    async def main(way: Way) -> None:
        pair = ToyPair(replace(ASKED, rule=rule), way)
        written = await pair.run()
        assert written.degraded == set()
        assert written.tokens == await pair.oracle(pair.engines)
        assert {closed.reason for closed in written.closed.values()} <= {FinishReason.LENGTH, FinishReason.STOP}
        pair.require_free()

    for way in WAYS:
        run_in_virtual_time(main(way))


@pytest.mark.parametrize("placement", Peer)
def test_after_a_cut_both_ends_go_on_together(placement: Peer) -> None:
    async def main() -> None:
        pair = ToyPair(replace(ASKED, max_tokens=90, seed=6), Way(rtt_seconds=0.1, placement=placement))
        pair.acts = {8: lambda: pair.set_cut(is_cut=True), 30: lambda: pair.set_cut(is_cut=False)}
        written = await pair.run()
        assert len(written.tokens) == 90
        assert {12, 29} <= written.degraded
        assert not {*range(8), 89} & written.degraded
        assert written.tokens == await pair.oracle(pair.engines, degraded=frozenset(written.degraded))
        pair.require_free()

    run_in_virtual_time(main())


@pytest.mark.parametrize("num_tokens", [1, 10])
@pytest.mark.parametrize("num_cancels", [1, 2])
def test_cancelling_tells_the_other_end_and_frees_both_engines(num_tokens: int, num_cancels: int) -> None:
    async def main() -> None:
        pair = ToyPair()
        has_begun = asyncio.Event()
        pair.acts = {num_tokens: has_begun.set}
        running = asyncio.create_task(pair.run())
        await has_begun.wait()
        for _ in range(num_cancels):
            running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert pair.written.closed[Peer.OTHER].reason is FinishReason.CANCELLED
        assert asyncio.get_running_loop().time() < Limits().idle
        pair.require_free()

    run_in_virtual_time(main())


def test_a_second_cancel_while_the_first_is_served_still_frees_the_engine() -> None:
    async def main() -> None:
        pair = ToyPair()
        has_begun = asyncio.Event()
        pair.acts = {3: has_begun.set}
        driver = pair.drivers[Peer.OPENER]
        other = asyncio.create_task(pair.drivers[Peer.OTHER].run())
        running = asyncio.create_task(driver.run(pair.first_effects))
        await has_begun.wait()
        running.cancel()
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await other).reason is FinishReason.CANCELLED
        pair.require_free()

    run_in_virtual_time(main())
