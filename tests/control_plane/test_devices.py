"""Devices of a fleet: a real API server, a real broker, and the operator between them."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from dragon_core.errors import OurError
from dragon_core.topics import Topics
from dragon_core.types import WeightingRule
from dragon_operator.wanted import names
from dragon_runtime.settings import PlacementChoice
from local_cluster.control_plane import ControlPlane
from local_cluster.objects import Objects
from tests.control_plane.deployments import apply_once_let_in, deploy_beside, older_definition_of
from tests.control_plane.running_operator import CRDS, RunningOperator
from tests.servers.fleet_broker import FleetBroker
from tests.servers.fleet_device import FleetDevice, enrol

DEADLINE = 60


class Office:
    """A namespace with a deployment whose broker is outside, and an operator."""

    def __init__(self, objects: Objects, namespace: str, broker: FleetBroker, operator: RunningOperator) -> None:
        self.objects, self.namespace, self.broker, self.operator = objects, namespace, broker, operator

    def device_object(self, name: str, **spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.DEVICE_KIND,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"deployment": "helpdesk", **spec},
        }

    def make_device(self, name: str, **spec: Any) -> None:
        self.objects.apply(self.device_object(name, **spec))

    def device(self, name: str) -> dict[str, Any]:
        return self.objects.get(names.API_VERSION, names.DEVICE_KIND, name, self.namespace) or {}

    def condition(self, device: str, kind: str) -> tuple[str | None, str | None]:
        """(status, reason)."""
        conditions = (self.device(device).get("status") or {}).get("conditions") or []
        found: dict[str, Any] = next((c for c in conditions if c["type"] == kind), {})
        return found.get("status"), found.get("reason")

    async def until(self, is_so: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                while not await asyncio.to_thread(is_so):  # noqa: ASYNC110 - polled: many things are waited for
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"not within {DEADLINE} s: {what}\n{self.operator.log[-3000:]}")

    async def until_condition(self, device: str, kind: str, status: str, reason: str) -> None:
        await self.until(lambda: self.condition(device, kind) == (status, reason), f"{kind} is {status} {reason}")

    async def token(self, device: str) -> str:
        """The join token in its Secret."""
        where = ("v1", "Secret", names.join_secret(device), self.namespace)
        await self.until(lambda: self.objects.get(*where) is not None, "a join token")
        await self.until_condition(device, "Enrolled", "False", "TokenWaiting")
        secret = self.objects.get(*where) or {}
        return base64.b64decode(secret["data"]["token"]).decode()


@pytest.fixture
async def office(control_plane: ControlPlane, installed: None, namespace: str, tmp_path: Path) -> AsyncIterator[Office]:
    topics = Topics(namespace, "helpdesk")
    running = RunningOperator(
        tmp_path / "operator", control_plane.kubeconfig, namespaces=[namespace], lease_namespace=namespace
    )
    async with FleetBroker(tmp_path / "broker", topics) as broker:
        devices = {"heartbeatSeconds": 1, "defaults": {"window": 7, "sampling": {"temperature": 0.5}}}
        weighting = {"rule": "Contrast", "beta": 0.75}
        aggregation = {"weighting": weighting, "nucleus": 0.9, "branches": 1, "placement": "Cloud"}
        deploy_beside(control_plane.objects, broker, namespace, devices=devices, aggregation=aggregation)
        with running:
            yield Office(control_plane.objects, namespace, broker, running)
        assert "Traceback" not in running.log


async def test_enrolled_seen_configured_and_revoked(office: Office, tmp_path: Path) -> None:
    office.make_device("kiosk", configuration={"branches": 3})
    token = await office.token("kiosk")
    await enrol(token, tmp_path / "kiosk")
    await office.until_condition("kiosk", "Enrolled", "True", "CertificateIssued")
    async with FleetDevice(tmp_path / "kiosk") as device:
        await office.until_condition("kiosk", "Ready", "True", "Heartbeat")
        await office.until_condition("kiosk", "ConfigurationApplied", "True", "Applied")
        applied = device.applied[-1]
        assert (applied.window, applied.branches, applied.placement) == (7, 3, PlacementChoice.CLOUD)
        # What both ends must agree on comes from the deployment.
        assert (applied.weighting.rule, applied.weighting.beta) == (WeightingRule.CONTRAST, 0.75)
        assert (applied.nucleus, applied.max_published_tokens) == (0.9, 64)
        status = office.device("kiosk")["status"]
        assert status["daemonVersion"] == "1.2.3"
        assert status["configurationVersion"]["applied"] == status["configurationVersion"]["desired"]
        where = ("v1", "Secret", "kiosk-join", office.namespace)
        await office.until(lambda: office.objects.get(*where) is None, "the used token is gone")
        await office.until(lambda: fleet_summary(office).get("summary") == "1/1", "the deployment counts it")
        with pytest.raises(OurError):
            await enrol(token, tmp_path / "thief", answer_seconds=3)
        number = status["certificate"]["serialNumber"]
        office.make_device("kiosk", revoked=True)
        await office.until(lambda: device.connections[-1:] == [False], "its connection has ended")
    await office.until_condition("kiosk", "Enrolled", "False", "Revoked")
    assert office.device("kiosk")["status"]["revokedCertificates"] == [number]

    def is_listed() -> bool:
        secret = office.objects.get("v1", "Secret", "helpdesk-broker-crl", office.namespace) or {}
        listed = x509.load_pem_x509_crl(base64.b64decode(secret["data"]["crl.pem"]))
        return number in {f"{entry.serial_number:x}" for entry in listed}

    await office.until(is_listed, "its certificate is on the list")


def fleet_summary(office: Office) -> dict[str, Any]:
    found = office.objects.get(names.API_VERSION, names.DEPLOYMENT_KIND, "helpdesk", office.namespace) or {}
    return (found.get("status") or {}).get("fleet") or {}


async def test_a_change_made_while_it_was_away_arrives(office: Office, tmp_path: Path) -> None:
    office.make_device("kiosk")
    await enrol(await office.token("kiosk"), tmp_path / "kiosk")
    async with FleetDevice(tmp_path / "kiosk") as device:
        await office.until_condition("kiosk", "ConfigurationApplied", "True", "Applied")
        await device.vanish()
    await office.until_condition("kiosk", "Ready", "False", "ConnectionLost")
    office.make_device("kiosk", configuration={"window": 3})
    async with FleetDevice(tmp_path / "kiosk") as device:
        await office.until(lambda: bool(device.applied) and device.applied[-1].window == 3, "the change")
        await office.until_condition("kiosk", "Ready", "True", "Heartbeat")


async def test_an_operator_that_was_killed_goes_on(office: Office, tmp_path: Path) -> None:
    office.make_device("kiosk")
    token = await office.token("kiosk")
    office.operator.kill()
    office.operator.start()
    await enrol(token, tmp_path / "kiosk", answer_seconds=60)
    await office.until_condition("kiosk", "Enrolled", "True", "CertificateIssued")
    async with FleetDevice(tmp_path / "kiosk"):
        await office.until_condition("kiosk", "Ready", "True", "Heartbeat")


BY_THE_CLUSTER = ("uid", "resourceVersion", "creationTimestamp", "generation", "ownerReferences", "managedFields")
"""What docs/operations.md takes out of a backup."""


def backed_up(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for obj in found:
        for key in BY_THE_CLUSTER:
            obj["metadata"].pop(key, None)
    return found


async def test_a_fleet_is_restored_from_a_backup(office: Office, tmp_path: Path) -> None:
    objects, namespace = office.objects, office.namespace
    for name in ("kiosk", "stolen"):
        office.make_device(name)
        await enrol(await office.token(name), tmp_path / name)
        await office.until_condition(name, "Enrolled", "True", "CertificateIssued")
    office.make_device("stolen", revoked=True)
    revoked = ("v1", "Secret", "helpdesk-broker-crl", namespace)
    number = office.device("stolen")["status"]["certificate"]["serialNumber"]

    def is_listed() -> bool:
        secret = objects.get(*revoked) or {"metadata": {}}
        return number in (secret["metadata"].get("annotations") or {}).get(names.REVOKED, "")

    await office.until(is_listed, "the stolen one's certificate is on the list")
    office.operator.stop()
    label = f"{names.INSTANCE}=helpdesk"
    secrets = backed_up(objects.find("v1", "Secret", namespace, label_selector=label))
    devices = backed_up(objects.find(names.API_VERSION, names.DEVICE_KIND, namespace))
    deployments = backed_up(objects.find(names.API_VERSION, names.DEPLOYMENT_KIND, namespace))
    for obj in (*deployments, *devices):
        objects.delete(names.API_VERSION, obj["kind"], obj["metadata"]["name"], namespace)
    await office.until(lambda: not objects.find("v1", "Secret", namespace, label_selector=label), "all is collected")
    office.broker.stop()
    office.broker.forget_everything()
    await office.broker.start()

    for obj in (*secrets, *devices, *deployments):
        objects.apply({"apiVersion": "v1", "kind": "Secret", **obj})
    for obj in devices:
        objects.write_status(names.API_VERSION, names.DEVICE_KIND, obj["metadata"]["name"], namespace, obj["status"])
    office.operator.start()
    async with FleetDevice(tmp_path / "kiosk"):
        await office.until_condition("kiosk", "Ready", "True", "Heartbeat")
    await office.until_condition("stolen", "Enrolled", "False", "Revoked")
    assert office.condition("kiosk", "Enrolled") == ("True", "CertificateIssued")
    assert is_listed()
    uid = (objects.get(names.API_VERSION, names.DEPLOYMENT_KIND, "helpdesk", namespace) or {})["metadata"]["uid"]
    for before in secrets:
        after = objects.get("v1", "Secret", before["metadata"]["name"], namespace) or {}
        assert after["data"] == before["data"]
        assert [owner["uid"] for owner in after["metadata"]["ownerReferences"]] == [uid]


async def test_another_token_for_a_device_that_was_set_up_anew(office: Office, tmp_path: Path) -> None:
    office.make_device("kiosk")
    first = await enrol(await office.token("kiosk"), tmp_path / "first")
    await office.until_condition("kiosk", "Enrolled", "True", "CertificateIssued")
    office.make_device("kiosk", joinTokenGeneration=2)
    second = await enrol(await office.token("kiosk"), tmp_path / "second")
    assert second.certificate.serial_number != first.certificate.serial_number
    await office.until(
        lambda: first.certificate.serial_number in (office.device("kiosk")["status"].get("revokedCertificates") or []),
        "the former certificate is refused",
    )


async def test_a_device_without_a_deployment_is_told(office: Office) -> None:
    office.objects.apply(
        {
            "apiVersion": names.API_VERSION,
            "kind": names.DEVICE_KIND,
            "metadata": {"name": "stray", "namespace": office.namespace},
            "spec": {"deployment": "nowhere"},
        }
    )
    await office.until_condition("stray", "Ready", "False", "DeploymentMissing")


async def test_a_device_whose_spec_cannot_be_read_stays_as_it_was(office: Office, tmp_path: Path) -> None:
    office.make_device("kiosk")
    await enrol(await office.token("kiosk"), tmp_path / "kiosk")
    async with FleetDevice(tmp_path / "kiosk") as device:
        await office.until_condition("kiosk", "ConfigurationApplied", "True", "Applied")
        office.objects.apply(older_definition_of("edgedevices", "configuration"))
        try:
            unreadable = office.device_object("kiosk", configuration={"window": "wide"})
            await asyncio.to_thread(apply_once_let_in, office.objects, unreadable)
            await office.until_condition("kiosk", "ConfigurationApplied", "False", "InvalidSpec")
            office.make_device("other")  # the broker is brought to what is wanted once more
            await office.token("other")
            assert device.connections == [True]
            assert office.condition("kiosk", "Ready") == ("True", "Heartbeat")
        finally:
            office.make_device("kiosk", configuration={"window": 7})
            office.objects.apply(CRDS / "edgedevices.yaml")
        await office.until_condition("kiosk", "ConfigurationApplied", "True", "Applied")
