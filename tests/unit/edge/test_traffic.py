"""What a device says of its answers."""

from collections.abc import Callable
from typing import Any

from dragon_core.fleet.messages import LinkReport
from dragon_core.session.events import Report
from dragon_core.types import Peer
from dragon_runtime.channel.memory import MemoryChannel
from dragon_runtime.channel.probe import CloudProbe
from dragon_runtime.settings import PlacementChoice
from edge_daemon.fleet.traffic import Traffic


def report(**given: Any) -> Report:
    whole: dict[str, Any] = {
        "num_tokens": 10,
        "num_degraded": 0,
        "num_mixed": 10,
        "hit_rate": {Peer.OPENER: 0.5, Peer.OTHER: 0.7},
        "num_steps": {},
        "num_wasted_steps": {},
        "max_window_used": 1,
        "aggregator": Peer.OTHER,
        "opener_share": None,
        "dropped_mass_mean": None,
        "dropped_mass_max": None,
        "our_documents": (),
        "their_documents": (),
        "rtt_seconds": None,
        "term": 0,
    }
    return Report(**{**whole, **given})


def told(traffic: Traffic, pinned: PlacementChoice = PlacementChoice.AUTO) -> LinkReport:
    return traffic.report(session="0" * 32, sequence=1, pinned=pinned)


def traffic_of(*, is_answered: bool) -> Traffic:
    create: Callable[[str], MemoryChannel] = lambda _: MemoryChannel()  # noqa: E731 - never called
    probe = CloudProbe(create)
    probe.is_answered, probe.rtt_seconds = is_answered, 0.1
    return Traffic(probe)


def test_counts_and_means() -> None:
    traffic = traffic_of(is_answered=True)
    assert told(traffic) == LinkReport(session="0" * 32, sequence=1, rtt_seconds=0.1)
    traffic.take(report(), is_solo=False)
    traffic.take(report(num_degraded=2, hit_rate={Peer.OPENER: None, Peer.OTHER: 0.0}), is_solo=False)
    found = told(traffic)
    assert (found.answers, found.tokens, found.degraded_answers, found.hit_rate) == (2, 20, 1, 0.3)
    assert (found.placement, found.placement_reason) == ("cloud", "Measured")
    assert told(traffic, PlacementChoice.CLOUD).placement_reason == "Pinned"
    traffic.take(report(aggregator=Peer.OPENER), is_solo=False)
    assert told(traffic).placement == "edge"


def test_an_answer_of_the_device_alone_says_nothing_of_the_cloud() -> None:
    traffic = traffic_of(is_answered=True)
    traffic.take(report(num_degraded=10, aggregator=Peer.OPENER), is_solo=True)
    found = told(traffic)
    assert (found.answers, found.degraded_answers, found.placement, found.hit_rate) == (1, 0, None, None)


def test_without_a_cloud_the_device_answers() -> None:
    found = told(traffic_of(is_answered=False))
    assert (found.placement, found.placement_reason, found.rtt_seconds) == ("edge", "CloudUnreachable", None)
