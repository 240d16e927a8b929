"""A real daemon without a broker: killed while it ingests, stopped while it works, and answering alone."""

import signal
import threading
from pathlib import Path

import httpx
import pytest
from openai import APIError, OpenAI

from tests.servers.daemon import Daemon

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

NUM_ACKNOWLEDGED = 10
NUMBERS = "Write the numbers from 1 to 500, one after the other: 1, 2, 3, 4, 5,"
"""Without chance its answer goes on for longer than the daemon waits when it is stopped."""


def facts(number: int, *, count: int = 20) -> bytes:
    return " ".join(f"Fact {number}.{i}: box {number} holds {i} stones." for i in range(count)).encode()


class Adding:
    """Adds one document after the other until the daemon is gone; `acknowledged` are {number: id} of what was taken."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.acknowledged: dict[int, str] = {}
        self.is_enough = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        for number in range(1000):
            try:
                response = self._daemon.add(f"{number}.txt", facts(number))
            except httpx.TransportError:
                return
            assert response.status_code == 202
            self.acknowledged[number] = response.json()["id"]
            if len(self.acknowledged) == NUM_ACKNOWLEDGED:
                self.is_enough.set()


def test_no_document_that_was_acknowledged_is_lost_when_the_daemon_is_killed(tmp_path: Path) -> None:
    with Daemon(tmp_path / "data", settings_folder=tmp_path) as daemon:
        adding = Adding(daemon)
        assert adding.is_enough.wait(120)
        states = [daemon.document(key)["state"] for key in adding.acknowledged.copy().values()]
        daemon.kill()
        adding.thread.join()
        assert states[-1] in {"queued", "running"}, "it was killed too late to show anything"

        daemon.start()
        for number, key in adding.acknowledged.items():
            assert daemon.wait_for(key, seconds=120)["state"] == "done"
            found = daemon.search(f"What does box {number} hold?", num_passages=5)
            assert key in {passage["document_id"] for passage in found}
        before = httpx.get(f"{daemon.url}/v1/documents", params={"limit": 1000}).json()
        for number, key in adding.acknowledged.items():
            again = daemon.add(f"again {number}.txt", facts(number))
            assert (again.status_code, again.json()["id"], again.json()["name"]) == (200, key, f"{number}.txt")
        assert httpx.get(f"{daemon.url}/v1/documents", params={"limit": 1000}).json() == before


def test_a_daemon_that_is_stopped_while_it_works_ends_cleanly_and_goes_on_later(tmp_path: Path) -> None:
    with Daemon(tmp_path / "data", settings_folder=tmp_path) as daemon:
        readiness = httpx.get(f"{daemon.url}/readyz")
        assert (readiness.status_code, readiness.json()["status"]) == (200, "degraded")
        assert "refused" in readiness.json()["checks"]["broker"]["message"].lower()
        key = daemon.add("large.txt", b"".join(facts(number, count=100) for number in range(100))).json()["id"]
        with OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(
                model=client.models.list().data[0].id,
                messages=[{"role": "user", "content": NUMBERS}],
                max_tokens=1500,
                temperature=0,
                stream=True,
                extra_body={"dragon": {"mode": "edge_only"}},
            )
            for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
            assert daemon.document(key)["state"] in {"queued", "running"}
            assert daemon.stop() == 0
            with pytest.raises(APIError, match="the device is shutting down"):
                list(stream)
        assert "Traceback" not in daemon.log
        daemon.start()
        assert daemon.document(key)["state"] in {"queued", "running"}
        assert httpx.delete(f"{daemon.url}/v1/documents/{key}", timeout=120).json()["deleted"]
        assert daemon.search("What does box 3 hold?") == []
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGINT)
        assert daemon.process.wait(60) == 0
