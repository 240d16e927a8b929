"""The whole product in a cluster: chart, deployment, a device outside behind a slow link, and what goes wrong.

Needs the images in the cluster; runs in order, each test goes on from the one before.
"""

import concurrent.futures
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from local_cluster.waiting import wait_until
from tests.cluster.stack import NAMESPACE, ROOT, Cluster, OutsideDevice

pytestmark = pytest.mark.timeout(1500)

QUESTION = "What does the first hour in the garage cost, and what is the code of the gate?"

LOG_IN = """
import base64, sys
from pymilvus import MilvusClient, MilvusException
try:
    MilvusClient("http://helpdesk-milvus:19530", token=base64.b64decode(sys.stdin.read()).decode()).list_collections()
    print("taken")
except MilvusException:
    print("refused")
"""
"""At the store, with the token of standard input."""


@pytest.fixture(scope="module")
def cluster(kubeconfig: Path) -> Cluster:
    """The operator and a deployment that is Ready."""
    running = Cluster(kubeconfig)
    running.install()
    running.deploy()
    running.wait_ready()
    return running


@pytest.fixture(scope="module")
def device(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutsideDevice]:
    """A device outside that is enrolled and there, with a private document."""
    outside = OutsideDevice(tmp_path_factory.mktemp("device"), cluster)
    cluster.kubectl("delete", "ed/kiosk", "--ignore-not-found")
    cluster.kubectl("apply", f"--filename={ROOT / 'examples' / 'device.yaml'}")
    token = cluster.join_token("kiosk")
    with outside.linked():
        outside.join(token)
        outside.run()
        outside.add_document("gate.md", "# Gate\n\nThe code of the garage gate is 4711.\n")
        wait_until(lambda: '"ready"' in (outside.get("/readyz") or ""), "both ends are there", seconds=120)
        yield outside


def is_mixed(answer: dict[str, Any]) -> bool:
    return bool(answer["dragon"]["mixed_tokens"]) and not answer["dragon"]["degraded_tokens"]


def asked_while(device: OutsideDevice, act: Any) -> dict[str, Any]:
    """An answer during which something happens."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(device.ask, QUESTION, max_tokens=96, temperature=0.7)
        act()
        return answer.result(timeout=400)


def wait_until_mixed(device: OutsideDevice) -> None:
    def is_mixed_again() -> bool:
        answer = device.try_to_ask(QUESTION)
        return answer is not None and is_mixed(answer)

    wait_until(is_mixed_again, "answers are mixed again", seconds=300)


def test_an_answer_comes_from_both_sides(cluster: Cluster, device: OutsideDevice) -> None:
    cluster.wait_condition("dd/helpdesk", "DocumentsLoaded", "True", seconds=300)
    answer = device.ask(QUESTION)
    assert is_mixed(answer), answer
    sides = {document["side"] for document in answer["dragon"]["documents"]}
    assert sides == {"edge", "cloud"}, answer
    cluster.wait_condition("ed/kiosk", "Ready", "True")
    wait_until(
        lambda: cluster.get("dd/helpdesk")["status"].get("fleet", {}).get("summary") == "1/1", "it counts", seconds=60
    )


@pytest.mark.parametrize("component", ["triton", "broker", "cloud-peer"])
def test_a_pod_is_killed_in_mid_answer(cluster: Cluster, device: OutsideDevice, component: str) -> None:
    pod = cluster.pod(component)
    answer = asked_while(device, lambda: cluster.kubectl("delete", "pod", pod, "--grace-period=0", "--force"))
    assert answer["choices"][0]["finish_reason"] in {"stop", "length"}, answer
    cluster.wait_ready(seconds=300)
    wait_until_mixed(device)


def test_two_cloud_peers(cluster: Cluster, device: OutsideDevice) -> None:
    cluster.kubectl("scale", "dd/helpdesk", "--replicas=2")
    wait_until(
        lambda: cluster.get("deployment/helpdesk-cloud-peer")["status"].get("readyReplicas") == 2, "two", seconds=300
    )
    assert is_mixed(device.ask(QUESTION))
    cluster.kubectl("scale", "dd/helpdesk", "--replicas=1")


def test_another_model(cluster: Cluster, device: OutsideDevice) -> None:
    before = cluster.pod("triton")
    cluster.kubectl("patch", "dd/helpdesk", "--type=merge", '--patch={"spec":{"model":{"numSequences":12}}}')
    cluster.wait_condition("dd/helpdesk", "Progressing", "True")
    assert cluster.condition("dd/helpdesk", "Ready")[0] == "True"
    cluster.wait_condition("dd/helpdesk", "Progressing", "False", seconds=600)
    assert cluster.pod("triton") != before
    wait_until_mixed(device)


def test_what_both_ends_must_agree_on_is_changed_in_one_place(cluster: Cluster, device: OutsideDevice) -> None:
    weighting = '{"spec":{"aggregation":{"weighting":{"rule":"Equal"}}}}'
    cluster.kubectl("patch", "dd/helpdesk", "--type=merge", f"--patch={weighting}")

    def is_equal_and_mixed() -> bool:
        answer = device.try_to_ask(QUESTION)  # refused while only one end has it
        return answer is not None and is_mixed(answer) and answer["dragon"]["weighting"] == "equal"

    wait_until(is_equal_and_mixed, "both ends weigh anew", seconds=300)
    cluster.wait_condition("ed/kiosk", "ConfigurationApplied", "True")


def test_credentials_are_rotated(cluster: Cluster, device: OutsideDevice) -> None:
    before = cluster.get("secret/helpdesk-broker-tls")["data"]["tls.crt"]
    former = cluster.get("secret/helpdesk-milvus")["data"]["token"]
    cluster.kubectl("annotate", "dd/helpdesk", "dragon-rag.io/rotate-credentials=now", "--overwrite")
    wait_until(
        lambda: cluster.get("secret/helpdesk-broker-tls")["data"]["tls.crt"] != before, "it is issued anew", seconds=60
    )
    cluster.wait_condition("dd/helpdesk", "Progressing", "False", seconds=600)
    cluster.wait_ready(seconds=300)
    wait_until_mixed(device)
    peer = ["exec", "--stdin", "deployment/helpdesk-cloud-peer", "--", "python", "-c", LOG_IN]
    present = cluster.get("secret/helpdesk-milvus")["data"]["token"]
    assert present != former
    assert cluster.kubectl(*peer, content=former).strip() == "refused"
    assert cluster.kubectl(*peer, content=present).strip() == "taken"


def test_suspended_and_on_again(cluster: Cluster, device: OutsideDevice) -> None:
    cluster.kubectl("patch", "dd/helpdesk", "--type=merge", '--patch={"spec":{"suspend":true}}')
    label = "--selector=app.kubernetes.io/managed-by=dragon-operator,app.kubernetes.io/instance=helpdesk"
    wait_until(lambda: not cluster.get("pods", label)["items"], "nothing runs", seconds=300)
    answer = device.ask(QUESTION)
    assert answer["dragon"]["degraded_tokens"] == answer["dragon"]["num_tokens"]
    cluster.kubectl("patch", "dd/helpdesk", "--type=merge", '--patch={"spec":{"suspend":false}}')
    cluster.wait_ready()
    wait_until_mixed(device)


def test_helm_test_asks_a_question(cluster: Cluster) -> None:
    upgrade = ["--namespace=dragon-system", "--reset-then-reuse-values", "--wait", "--timeout=5m"]
    cluster.run("helm", "upgrade", "dragon", str(ROOT / "charts" / "dragon"), *upgrade, seconds=320)
    output = cluster.run("helm", "test", "dragon", "--namespace=dragon-system", "--timeout=15m", seconds=920)
    assert "Succeeded" in output


def test_a_revoked_device_is_alone(cluster: Cluster, device: OutsideDevice) -> None:
    cluster.kubectl("patch", "ed/kiosk", "--type=merge", '--patch={"spec":{"revoked":true}}')
    cluster.wait_condition("ed/kiosk", "Enrolled", "False")
    wait_until(lambda: '"degraded"' in (device.get("/readyz") or '"degraded"'), "it has no broker", seconds=60)
    answer = device.ask(QUESTION)
    assert answer["dragon"]["mixed_tokens"] == 0


def test_what_is_left_of_a_deleted_deployment(cluster: Cluster) -> None:
    cluster.kubectl("delete", "dd/helpdesk", "--wait=true")
    label = "--selector=app.kubernetes.io/managed-by=dragon-operator,app.kubernetes.io/instance=helpdesk"
    kinds = "pods,deployments,statefulsets,services,configmaps,secrets,networkpolicies,poddisruptionbudgets,jobs"
    wait_until(lambda: not cluster.get(kinds, label)["items"], "nothing of it runs", seconds=300)
    claims = {claim["metadata"]["name"] for claim in cluster.get("persistentvolumeclaims")["items"]}
    assert claims == {"models", "data-helpdesk-milvus-0"}


def test_the_definitions_stay_when_the_chart_goes(cluster: Cluster) -> None:
    cluster.run("helm", "uninstall", "dragon", "--namespace=dragon-system", "--wait", seconds=320)
    definitions = yaml.safe_load(cluster.run("kubectl", "get", "customresourcedefinitions", "--output=yaml"))
    assert len([d for d in definitions["items"] if d["spec"]["group"] == "dragon-rag.io"]) == 2
    cluster.run("kubectl", "delete", "namespace", NAMESPACE, "--wait=false")
