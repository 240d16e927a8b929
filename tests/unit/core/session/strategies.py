"""Any question, and any schedule a channel and two machines may produce."""

from hypothesis import strategies as st

from dragon_core.types import Context, CouplingKind, Peer, WeightingRule
from simulator.oracle import Question
from simulator.schedule import Schedule

contexts = st.lists(
    st.builds(
        Context,
        tokens=st.lists(st.integers(1, 23), min_size=1, max_size=2).map(tuple),
        relevance=st.sampled_from([0.2, 0.4, 0.5, 0.6, 0.9]),
        document_ids=st.sampled_from([(), ("a",), ("a", "b")]),
    ),
    min_size=1,
    max_size=3,
).map(tuple)
questions = st.builds(
    Question,
    seed=st.integers(0, 2**64 - 1),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    top_k=st.sampled_from([0, 0, 5]),
    min_p=st.sampled_from([0.0, 0.0, 0.05]),
    top_p=st.sampled_from([1.0, 1.0, 0.9]),
    rule=st.sampled_from(WeightingRule),
    coupling=st.sampled_from(CouplingKind),
    max_tokens=st.integers(1, 30),
    stop=st.sampled_from([(), (), (), (" w1",), (" w2 w", "1"), ("9 w1",)]),
    num_top_logprobs=st.sampled_from([None, None, 0, 3]),
    contexts=st.tuples(contexts, contexts),
)
spans = st.tuples(st.floats(0.0, 3.0), st.floats(0.01, 3.0)).map(lambda span: (span[0], span[0] + span[1]))
frame_numbers = st.frozensets(st.integers(0, 150), max_size=6)
times = st.lists(st.floats(0.1, 3.0), max_size=3).map(tuple)
both = st.sampled_from([0.0, 0.1, 0.5])
decoding = st.sampled_from([0.002, 0.01, 0.03])
quiet = {
    "delay_seconds": st.sampled_from([0.0, 0.003, 0.02, 0.15]),
    "jitter_seconds": st.sampled_from([0.0, 0.0, 0.02]),
    "prefill_seconds": st.tuples(both, both),
    "decode_seconds": st.tuples(decoding, decoding),
    "window": st.integers(1, 12),
    "branches": st.integers(1, 3),
    "placement": st.sampled_from([None, None, Peer.OPENER, Peer.OTHER]),
    "moves": times,
    "repeated": frame_numbers,
    "are_stale_answers_given": st.booleans(),
}
quiet_schedules = st.builds(Schedule, **quiet)
rough_schedules = st.builds(
    Schedule,
    **quiet,
    cuts=st.lists(spans, max_size=2).map(tuple),
    are_cuts_noticed=st.booleans(),
    silences=st.lists(
        st.tuples(st.sampled_from(Peer), spans).map(lambda silence: (silence[0], *silence[1])), max_size=1
    ).map(tuple),
    lost=frame_numbers,
    deaths=st.lists(st.floats(0.0, 3.0), max_size=1).map(tuple),
    num_replicas=st.integers(1, 2),
    full_until=st.sampled_from([0.0, 0.0, 0.0, 0.2, 1.2]),
)
