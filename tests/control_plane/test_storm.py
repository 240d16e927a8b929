"""Two thousand devices that come and go all at once: what the operator writes stays under its rate."""

import asyncio
import json
import re
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from dragon_core.fleet.messages import LinkReport, Presence, PresenceEvent, encode
from dragon_core.topics import FleetTopic, Topics
from dragon_operator.fleet.access import both_ways
from dragon_operator.fleet.security_plan import DEVICE_MARK, DEVICE_ROLE
from dragon_operator.objects.broker_files import SECURITY_FILE
from dragon_operator.wanted import names
from dragon_runtime.channel.connection import MqttConnection
from edge_daemon.fleet.member import new_session
from local_cluster.control_plane import ControlPlane
from local_cluster.objects import Objects
from local_cluster.waiting import wait_until
from tests.control_plane.deployments import deploy_beside
from tests.control_plane.running_operator import RunningOperator
from tests.servers.fleet_broker import FleetBroker

pytestmark = pytest.mark.timeout(900)

NUM_DEVICES = 2000
NUM_MOODS = 3
NUM_CHANGES = (2 * NUM_MOODS + 1) * NUM_DEVICES
HEARTBEAT_SECONDS = 600
MOOD_SECONDS = 5
"""More at once than the broker keeps for a client is lost, and made good by the next heartbeat."""
LOOK_SECONDS, SETTLED_SECONDS = 3, 240
"""Before measurements are told anew, which would hide a presence that was not told."""
WRITES_PER_SECOND, STATUSES_PER_SECOND = 50, 25
BURST = 60
"""What may be written at once after a quiet time, and the deployment's own status."""
EXPIRES = "2099-01-01T00:00:00Z"


def read(objects: Objects, path: str) -> httpx.Response:
    """What the API server answers, without making objects of thousands of items."""
    known = objects.client.configuration
    headers = {"Authorization": known.get_api_key_with_prefix("BearerToken")}
    trusted = ssl.create_default_context(cafile=known.ssl_ca_cert)
    answer = httpx.get(known.host + path, verify=trusted, headers=headers, timeout=60)
    return answer.raise_for_status()


class ApiWrites:
    """What the API server says was written since the last look: (all of ours, statuses of devices) per second."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._at, self._counts = time.monotonic(), self._count()

    def _count(self) -> tuple[float, float]:
        text = read(self._objects, "/metrics").text
        every = statuses = 0.0
        for labels, value in re.findall(r"^apiserver_request_total\{(.*?)\} (\S+)$", text, re.MULTILINE):
            is_write = re.search(r'verb="(POST|PUT|PATCH|APPLY|DELETE)"', labels) is not None
            if not is_write or 'resource="leases"' in labels:  # of controllers that tell that they lead
                continue
            every += float(value)
            if 'resource="edgedevices"' in labels and 'subresource="status"' in labels:
                statuses += float(value)
        return every, statuses

    def look(self) -> tuple[float, float, float]:
        """(seconds, writes, writes of the status of devices) since the last look."""
        at, counts = time.monotonic(), self._count()
        seconds, changes = at - self._at, [now - before for now, before in zip(counts, self._counts, strict=True)]
        self._at, self._counts = at, counts
        return seconds, changes[0], changes[1]


def leaving_namespaces(objects: Objects) -> list[str]:
    """Namespaces that are deleted: hundreds of writes of the controllers in them are not over yet."""
    found = objects.find("v1", "Namespace")
    return [each["metadata"]["name"] for each in found if each["metadata"].get("deletionTimestamp")]


def make_enrolled(objects: Objects, namespace: str, name: str) -> None:
    """A device that has its certificate."""
    objects.apply(
        {
            "apiVersion": names.API_VERSION,
            "kind": names.DEVICE_KIND,
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"deployment": "helpdesk"},
        }
    )
    certificate = {"serialNumber": "01", "expires": EXPIRES, "joinTokenGeneration": 1}
    objects.write_status(names.API_VERSION, names.DEVICE_KIND, name, namespace, {"certificate": certificate})


def make_all_enrolled(objects: Objects, namespace: str, devices: list[str]) -> None:
    make_enrolled(objects, namespace, devices[0])  # by one: what the API server serves is learnt once
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: make_enrolled(objects, namespace, name), devices[1:]))


def remember(broker: FleetBroker, topics: Topics, devices: list[str]) -> None:
    """Have a broker know these devices from before: mosquitto takes minutes to be told of so many."""
    path = broker.data_folder / SECURITY_FILE
    content = json.loads(path.read_text())
    for name in devices:
        role = {"rolename": DEVICE_ROLE + name}
        content["roles"].append({**role, "acls": both_ways(f"{topics.device(name)}/#")})
        content["clients"].append({"username": name, "textdescription": DEVICE_MARK, "roles": [role]})
    path.write_text(json.dumps(content))


class Crowd:
    """All devices at once, over one connection that may speak for each."""

    def __init__(self, connection: MqttConnection, topics: Topics, devices: list[str]) -> None:
        self._connection, self._topics, self._devices = connection, topics, devices

    async def arrive(self) -> None:
        """Every device is born and heard."""
        session = new_session()
        for sequence, device in enumerate(self._devices):
            await self._say(device, FleetTopic.PRESENCE, encode(Presence(session=session, event=PresenceEvent.BIRTH)))
            await self._say(device, FleetTopic.LINK, encode(LinkReport(session=session, sequence=sequence)))
        self._session = session

    async def vanish(self) -> None:
        """The broker loses every device."""
        for device in self._devices:
            lost = Presence(session=self._session, event=PresenceEvent.LOST)
            await self._say(device, FleetTopic.PRESENCE, encode(lost))

    async def _say(self, device: str, kind: FleetTopic, payload: bytes) -> None:
        await self._connection.publish(
            self._topics.fleet(device, kind), payload, is_retained=kind is FleetTopic.PRESENCE
        )


def num_ready(objects: Objects, namespace: str) -> int:
    def is_ready(device: dict[str, Any]) -> bool:
        conditions = (device.get("status") or {}).get("conditions") or []
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    found = read(objects, f"/apis/{names.API_VERSION}/namespaces/{namespace}/edgedevices").json()
    return sum(is_ready(device) for device in found["items"])


async def test_a_storm_of_presence_does_not_flood_the_api_server(
    control_plane: ControlPlane, installed: None, namespace: str, tmp_path: Path
) -> None:
    objects, topics = control_plane.objects, Topics(namespace, "helpdesk")
    devices = [f"device-{number}" for number in range(NUM_DEVICES)]
    operator = RunningOperator(
        tmp_path / "operator",
        control_plane.kubeconfig,
        namespaces=[namespace],
        lease_namespace=namespace,
        resync_seconds=60,
        max_writes_per_second=WRITES_PER_SECOND,
        max_status_writes_per_second=STATUSES_PER_SECOND,
    )
    await asyncio.to_thread(make_all_enrolled, objects, namespace, devices)
    await asyncio.to_thread(
        wait_until,
        lambda: not leaving_namespaces(objects),
        "nothing is collected any more of what tests before this one made",
        seconds=SETTLED_SECONDS,
    )
    broker = FleetBroker(tmp_path / "broker", topics)
    remember(broker, topics, devices)
    async with broker:
        deploy_beside(objects, broker, namespace, devices={"heartbeatSeconds": HEARTBEAT_SECONDS})
        writes = ApiWrites(objects)
        with operator:
            async with MqttConnection(broker.settings("operator"), client_id="crowd") as connection:
                await connection.wait_until_connected()
                crowd = Crowd(connection, topics, devices)
                for _ in range(NUM_MOODS):
                    await crowd.arrive()
                    await asyncio.sleep(MOOD_SECONDS)
                    await crowd.vanish()
                    await asyncio.sleep(MOOD_SECONDS)
                await crowd.arrive()
                async with asyncio.timeout(SETTLED_SECONDS):
                    while await asyncio.to_thread(num_ready, objects, namespace) < NUM_DEVICES:  # noqa: ASYNC110
                        await asyncio.sleep(LOOK_SECONDS)
            seconds, every, statuses = writes.look()
            assert every <= WRITES_PER_SECOND * seconds + BURST, (seconds, every, statuses)
            presences = statuses - NUM_DEVICES  # each is told once that it is enrolled
            assert presences <= STATUSES_PER_SECOND * seconds + BURST, (seconds, every, statuses)
            assert NUM_DEVICES <= presences <= NUM_CHANGES / 2, (seconds, every, statuses)
        assert "Traceback" not in operator.log
