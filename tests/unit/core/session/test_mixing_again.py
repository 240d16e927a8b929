"""After a failure the opener goes on alone, and mixes again as soon as the other end is heard."""

import dataclasses
import itertools

import pytest

from dragon_core.messages import Open, Ready, Resume
from dragon_core.types import Context, CouplingKind, Peer, WeightingRule
from simulator.oracle import Question
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule
from tests.unit.core.session.expectations import require_clean_end, require_oracles_answer

LONG = Question(seed=1, max_tokens=120, temperature=0.7, end_penalty=60.0)
SLOWLY = (0.05, 0.04)
RETRY_SECONDS = 8.0
"""The longest pause between two attempts to be heard again."""


def degraded_times(pair: PeerPair) -> list[float]:
    return [at for at, emit in zip(pair.emitted_at, pair.emitted, strict=True) if emit.is_degraded]


@pytest.mark.parametrize("is_noticed", [True, False])
@pytest.mark.parametrize("coupling", CouplingKind)
@pytest.mark.parametrize("placement", [None, *Peer])
def test_after_a_cut_the_next_tokens_are_mixed_again(
    placement: Peer | None, coupling: CouplingKind, is_noticed: bool
) -> None:
    question = dataclasses.replace(LONG, coupling=coupling)
    length = 2.5
    end = 0.6 + length
    schedule = Schedule(decode_seconds=SLOWLY, placement=placement, cuts=((0.6, end),), are_cuts_noticed=is_noticed)
    pair = PeerPair(question, schedule)
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)
    degraded = degraded_times(pair)
    assert degraded, "the cut was long enough to go on alone"
    mixed = [at for at, emit in zip(pair.emitted_at, pair.emitted, strict=True) if emit.settled.logprob is not None]
    assert max(degraded) < min(at for at in mixed if at > end), "once mixed, it stays so"
    # Where nobody says that the link is back, attempts are as far apart as the opener has been alone.
    patience = 0.5 if is_noticed else length + 1.0
    assert min(at for at in mixed if at > end) < end + patience
    positions = sorted(pair.degraded)
    assert positions == list(range(positions[0], positions[-1] + 1)), "one run of degraded tokens"


def test_a_cut_that_is_noticed_is_over_a_round_trip_after_it_ends() -> None:
    """The channel says that it is back: nobody waits for a timer."""
    pair = PeerPair(LONG, Schedule(decode_seconds=SLOWLY, cuts=((0.6, 3.0),), are_cuts_noticed=True))
    pair.run()
    is_resumed = [
        at for at, emit in zip(pair.emitted_at, pair.emitted, strict=True) if at > 3.0 and not emit.is_degraded
    ]
    assert is_resumed[0] < 3.0 + 5 * pair.schedule.delay_seconds + 6 * max(SLOWLY)


def test_the_opener_names_a_position_ahead_of_it_to_mix_from() -> None:
    pair = PeerPair(LONG, Schedule(decode_seconds=SLOWLY, cuts=((0.6, 3.0),)))
    pair.run()
    named = [
        message.mix_position
        for peer, message in pair.messages
        if peer is Peer.OPENER and isinstance(message, Resume) and message.mix_position is not None
    ]
    last_degraded = max(pair.degraded)
    assert all(position <= last_degraded + 1 for position in named)


@pytest.mark.parametrize("fed_token_seconds", [0.0, 0.02, 0.04])
@pytest.mark.parametrize("prefill_seconds", [0.5, 4.0])
def test_a_replica_that_has_to_catch_up_is_waited_for(prefill_seconds: float, fed_token_seconds: float) -> None:
    """It takes in what was fixed without it hardly faster than the opener goes on: it never would at full speed."""
    schedule = Schedule(
        decode_seconds=(0.045, 0.05),
        fed_token_seconds=fed_token_seconds,
        prefill_seconds=(0.1, prefill_seconds),
        deaths=(prefill_seconds + 0.8,),
        num_replicas=2,
    )
    pair = PeerPair(dataclasses.replace(LONG, max_tokens=240), schedule)
    pair.run()
    require_oracles_answer(pair)
    first, last = min(pair.degraded), max(pair.degraded)
    assert sorted(pair.degraded) == list(range(first, last + 1)), "one run of degraded tokens"
    assert last < len(pair.tokens) - 10
    ready_at = next(
        at
        for at, (peer, message) in zip(pair.sent_at, pair.messages, strict=True)
        if peer is Peer.OTHER and isinstance(message, Ready) and at > pair.emitted_at[first]
    )
    after_ready = [position for position in pair.degraded if pair.emitted_at[position] > ready_at]
    assert len(after_ready) < 10, "it is not left behind once it is there"


def test_two_cuts_leave_two_runs_of_degraded_tokens() -> None:
    pair = PeerPair(LONG, Schedule(decode_seconds=SLOWLY, cuts=((0.6, 2.4), (4.0, 5.8)), are_cuts_noticed=True))
    pair.run()
    require_oracles_answer(pair)
    positions = sorted(pair.degraded)
    runs = [at for at in positions if at - 1 not in positions]
    assert len(runs) == 2
    assert max(pair.degraded) < len(pair.tokens) - 10


def test_a_link_that_never_comes_back_is_asked_ever_more_rarely() -> None:
    pair = PeerPair(LONG, Schedule(decode_seconds=(0.3, 0.3), cuts=((0.6, 1e9),)))
    pair.run()
    require_oracles_answer(pair)
    asked_at = [
        at
        for at, peer, message in zip(pair.sent_at, *zip(*pair.messages, strict=True), strict=True)
        if peer is Peer.OPENER and isinstance(message, Resume | Open) and at > 3.0
    ]
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked_at)]
    assert len(pauses) > 4
    assert pauses == sorted(pauses)
    assert max(pauses) <= RETRY_SECONDS + 1e-6


def test_an_other_end_that_had_finished_comes_back() -> None:
    """Greedy and sure of itself, the other end has settled the whole answer long before the opener, and is cut off."""
    contexts = ((Context(tokens=(1, 2), relevance=0.1),), (Context(tokens=(3,), relevance=0.9),))
    question = Question(seed=3, temperature=0.0, rule=WeightingRule.RELEVANCE, contexts=contexts, max_tokens=60)
    schedule = Schedule(
        placement=Peer.OTHER, decode_seconds=(0.5, 0.01), window=16, silences=((Peer.OTHER, 0.35, 6.0),)
    )
    pair = PeerPair(question, schedule)
    pair.run()
    require_oracles_answer(pair)
    require_clean_end(pair)
    assert len(pair.tokens) > 45
    assert pair.degraded
    assert max(degraded_times(pair)) < 10.0
