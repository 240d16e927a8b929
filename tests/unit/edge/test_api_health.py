"""Whether the daemon lives and can answer, what it counts, and what nothing is found at."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dragon_core.messages import FinishReason
from dragon_core.session.events import Report
from dragon_core.types import Peer
from dragon_runtime.answering.cost import AnswerCost
from edge_daemon.answers import Readiness
from tests.fakes.answers import BAD, GOOD, ScriptedAnswers
from tests.fakes.served_api import ServedApi, served_api


async def samples(api: ServedApi) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of a scrape by its name and labels, read as Prometheus does."""
    response = await api.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(response.text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


async def test_it_lives() -> None:
    async with served_api() as api:
        response = await api.http.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


@pytest.mark.parametrize(
    ("readiness", "http_status", "status"),
    [
        (Readiness(model=GOOD, store=GOOD, broker=GOOD, cloud=GOOD), 200, "ready"),
        (Readiness(model=GOOD, store=GOOD, broker=GOOD, cloud=BAD), 200, "degraded"),
        (Readiness(model=GOOD, store=GOOD, broker=BAD, cloud=BAD), 200, "degraded"),
        (Readiness(model=BAD, store=GOOD, broker=GOOD, cloud=GOOD), 503, "not_ready"),
        (Readiness(model=GOOD, store=BAD, broker=GOOD, cloud=GOOD), 503, "not_ready"),
    ],
)
async def test_readiness_says_what_is_missing(readiness: Readiness, http_status: int, status: str) -> None:
    async with served_api(ScriptedAnswers(readiness=readiness)) as api:
        response = await api.http.get("/readyz")
    body = response.json()
    assert (response.status_code, body["status"]) == (http_status, status)
    assert set(body["checks"]) == {"model", "store", "broker", "cloud"}
    for name, check in body["checks"].items():
        expected = getattr(readiness, name)
        assert check == {"ready": expected.is_ready, "message": expected.message}


async def test_metrics_count_what_was_recorded() -> None:
    report = Report(
        num_tokens=10,
        num_degraded=2,
        num_mixed=8,
        hit_rate={Peer.OPENER: 0.85, Peer.OTHER: None},
        num_steps={Peer.OPENER: 12, Peer.OTHER: 9},
        num_wasted_steps={Peer.OPENER: 2, Peer.OTHER: 0},
        max_window_used=3,
        aggregator=Peer.OTHER,
        opener_share=0.5,
        dropped_mass_mean=0.1,
        dropped_mass_max=0.2,
        our_documents=(),
        their_documents=(),
        rtt_seconds=0.05,
        term=0,
    )
    cost = AnswerCost(first_token_seconds=0.3, seconds_per_token=0.02, sent_bytes=100, received_bytes=50)
    async with served_api() as api:
        api.metrics.watch_free_sequences(lambda: 5)
        api.metrics.record(FinishReason.STOP, report, cost)
        api.metrics.record(FinishReason.CANCELLED, report, cost)
        found = await samples(api)
    assert found["dragon_edge_answers_total", (("reason", "stop"),)] == 1
    assert found["dragon_edge_answers_total", (("reason", "cancelled"),)] == 1
    assert found["dragon_edge_tokens_total", ()] == 20
    assert found["dragon_edge_degraded_tokens_total", ()] == 4
    assert found["dragon_edge_steps_total", (("side", "edge"),)] == 24
    assert found["dragon_edge_wasted_steps_total", (("side", "edge"),)] == 4
    assert found["dragon_edge_frame_bytes_total", (("direction", "sent"),)] == 200
    assert found["dragon_edge_placements_total", (("side", "cloud"),)] == 2
    assert found["dragon_edge_hit_rate_count", (("side", "edge"),)] == 2
    assert ("dragon_edge_hit_rate_count", (("side", "cloud"),)) not in found
    assert found["dragon_edge_first_token_seconds_bucket", (("le", "0.5"),)] == 2
    assert found["dragon_edge_first_token_seconds_bucket", (("le", "0.2"),)] == 0
    assert found["dragon_edge_rtt_seconds", ()] == 0.05
    assert found["dragon_edge_free_sequences", ()] == 5


async def test_no_metric_grows_with_devices_sessions_or_documents() -> None:
    async with served_api() as api:
        labels = {name for _, pairs in await samples(api) for name, _ in pairs}
    assert labels <= {"reason", "side", "direction", "le"}


async def test_what_is_not_there_is_told_in_the_same_shape() -> None:
    async with served_api() as api:
        for method, path, status, code in (
            ("GET", "/v2/models", 404, "not_found"),
            ("GET", "/docs", 404, "not_found"),
            ("PUT", "/v1/models", 405, "method_not_allowed"),
        ):
            response = await api.http.request(method, path)
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (status, code)
            assert path in error["message"]
            assert set(error) == {"message", "type", "param", "code"}
