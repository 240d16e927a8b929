"""The `Open` of an answer: settings of the end that asks, and values of the request."""

import pytest

from dragon_core.messages import PROTOCOL_VERSION, ChatMessage
from dragon_core.types import CouplingKind, Peer, Sampling
from dragon_runtime.answering.request import DEADLINE_SECONDS, open_message
from dragon_runtime.settings import PlacementChoice, ProtocolSettings
from simulator.oracle import Question

FINGERPRINT = Question().fingerprint
ASKED = (ChatMessage("user", "Why?"),)


def test_an_open_has_the_settings_of_its_end_and_the_values_of_its_request() -> None:
    protocol = ProtocolSettings(window=7, branches=3, coupling=CouplingKind.INDEPENDENT)
    sampling = Sampling(temperature=0.9, top_k=5, min_p=0.1, top_p=0.8)
    found = open_message(
        protocol, FINGERPRINT, messages=ASKED, sampling=sampling, seed=3, max_tokens=9, stop=(".",), num_top_logprobs=2
    )
    assert (found.version, found.fingerprint, found.messages) == (PROTOCOL_VERSION, FINGERPRINT, ASKED)
    assert (found.window, found.branches, found.coupling) == (7, 3, CouplingKind.INDEPENDENT)
    assert (found.temperature, found.top_k, found.min_p, found.top_p) == (0.9, 5, 0.1, 0.8)
    assert (found.seed, found.max_tokens, found.stop, found.num_top_logprobs) == (3, 9, (".",), 2)
    assert (found.deadline_seconds, found.settled) == (DEADLINE_SECONDS, ())


@pytest.mark.parametrize(
    ("choice", "expected"),
    [(PlacementChoice.AUTO, None), (PlacementChoice.EDGE, Peer.OPENER), (PlacementChoice.CLOUD, Peer.OTHER)],
)
def test_the_edge_asks_so_it_is_the_opener(choice: PlacementChoice, expected: Peer | None) -> None:
    protocol = ProtocolSettings(placement=choice)
    found = open_message(protocol, FINGERPRINT, messages=ASKED, sampling=Sampling(), seed=0, max_tokens=1)
    assert found.placement is expected
