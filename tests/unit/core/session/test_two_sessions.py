"""Many answers at once: each is its own, though seeds are equal and everything else is shared."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from dragon_core.types import Context, CouplingKind, Peer, WeightingRule
from simulator.oracle import Question, oracle_tokens
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule
from simulator.virtual_time import VirtualTime
from tests.unit.core.session.strategies import quiet_schedules

CONTEXTS = (
    ((Context(tokens=(1, 2), relevance=0.6),), (Context(tokens=(3,), relevance=0.5),)),
    (
        (Context(tokens=(5,), relevance=0.4),),
        (Context(tokens=(6,), relevance=0.6), Context(tokens=(7,), relevance=0.5)),
    ),
    ((Context(tokens=(3,), relevance=0.5),), (Context(tokens=(1, 2), relevance=0.6),)),
)


def run_together(pairs: list[PeerPair]) -> None:
    """All in one virtual time: what each does comes between what the others do."""
    time = pairs[0].time
    for pair in pairs:
        assert pair.time is time
        pair.start()
    while any(not pair.is_over for pair in pairs) and time.advance(until=300.0):
        pass


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 2**64 - 1),
    st.sampled_from(WeightingRule),
    st.sampled_from(CouplingKind),
    st.lists(quiet_schedules, min_size=2, max_size=3),
)
def test_sessions_of_one_seed_never_mix(
    seed: int, rule: WeightingRule, coupling: CouplingKind, schedules: list[Schedule]
) -> None:
    question = Question(seed=seed, rule=rule, coupling=coupling, max_tokens=20)
    time = VirtualTime()
    pairs = [
        PeerPair(dataclasses.replace(question, contexts=contexts), schedule, time=time)
        for contexts, schedule in zip(CONTEXTS, schedules, strict=False)
    ]
    run_together(pairs)
    for pair in pairs:
        assert pair.tokens == oracle_tokens(pair.question)
        assert not pair.degraded
        assert pair.closed[Peer.OPENER].error == ""


def test_the_sessions_above_are_at_work_at_the_same_time_and_differ() -> None:
    time = VirtualTime()
    pairs = [PeerPair(Question(seed=3, contexts=contexts), Schedule(), time=time) for contexts in CONTEXTS[:2]]
    run_together(pairs)
    assert pairs[0].tokens != pairs[1].tokens
    first, second = (pair.emitted_at for pair in pairs)
    assert max(first[0], second[0]) < min(first[-1], second[-1])


def test_one_that_is_cut_off_does_not_disturb_the_other() -> None:
    time = VirtualTime()
    cut = PeerPair(Question(seed=3), Schedule(cuts=((0.3, 9.0),)), time=time)
    whole = PeerPair(Question(seed=3, contexts=CONTEXTS[1]), Schedule(), time=time)
    run_together([cut, whole])
    alone = PeerPair(Question(seed=3, contexts=CONTEXTS[1]), Schedule())
    assert whole.tokens == alone.run()
    assert whole.emitted_at == alone.emitted_at
    assert cut.tokens == oracle_tokens(cut.question, degraded=cut.degraded)
    assert cut.degraded
