"""The cluster itself: pods start, reach services by name, and keep files on a claimed volume."""

import subprocess
from typing import Any

import pytest

from local_cluster.layout import DEVICE_NAMESPACE, ECHO_IMAGE, NODE, NODE_ADDRESS
from local_cluster.objects import Objects
from local_cluster.waiting import wait_until


@pytest.fixture(autouse=True)
def own_node(objects: Objects) -> None:
    """Another cluster lacks the image of these tests."""
    if objects.get("v1", "Node", NODE) is None:
        pytest.skip("this is not the cluster of scripts/cluster")


def pod(name: str, *arguments: str, **spec: object) -> dict[str, Any]:
    container: dict[str, object] = {
        "name": "echo",
        "image": ECHO_IMAGE,
        "imagePullPolicy": "Never",
        "args": list(arguments),
    }
    container |= {"volumeMounts": spec.pop("mounts", [])}
    metadata = {"name": name, "labels": {"app": name}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, "restartPolicy": "Never", **spec},
    }


def service(name: str, **spec: object) -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": 8080}]
    metadata = {"name": name}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": {"app": name}, "ports": ports, **spec},
    }


def phase(objects: Objects, namespace: str, name: str) -> str:
    return str((objects.get("v1", "Pod", name, namespace) or {}).get("status", {}).get("phase"))


def output(objects: Objects, namespace: str, name: str, *arguments: str, **spec: object) -> str:
    """What a pod prints that runs to its end."""
    objects.apply(pod(name, *arguments, **spec), namespace=namespace)
    wait_until(lambda: phase(objects, namespace, name) in {"Succeeded", "Failed"}, f"the pod {name} has ended")
    return str(objects.core.read_namespaced_pod_log(name, namespace))


def answer(namespace: str, name: str, url: str) -> str:
    """What a pod gets from a URL; empty when it gets nothing."""
    command = ["kubectl", "exec", "--namespace", namespace, name, "--", "/echo", "get", url]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_pods_reach_a_service_by_its_name(objects: Objects, namespace: str) -> None:
    objects.apply(pod("web", "serve", ":8080"), namespace=namespace)
    [made] = objects.apply(service("web", type="NodePort"), namespace=namespace)
    wait_until(lambda: phase(objects, namespace, "web") == "Running", "the pod runs")
    assert output(objects, namespace, "resolver", "lookup", "web") == made["spec"]["clusterIP"]
    objects.apply(pod("client", "serve", ":8080"), namespace=namespace)
    wait_until(lambda: phase(objects, namespace, "client") == "Running", "the client runs")
    url = f"http://web.{namespace}.svc.cluster.local"
    wait_until(lambda: answer(namespace, "client", url) == "web", "it gets an answer", seconds=20)


def test_a_pod_reaches_itself_by_its_service(objects: Objects, namespace: str) -> None:
    objects.apply(pod("web", "serve", ":8080"), namespace=namespace)
    objects.apply(service("web"), namespace=namespace)
    wait_until(lambda: phase(objects, namespace, "web") == "Running", "the pod runs")
    # Its own name alone is its own address.
    url = f"http://web.{namespace}"
    wait_until(lambda: answer(namespace, "web", url) == "web", "it gets an answer", seconds=20)


def test_a_claim_is_bound_and_writable(objects: Objects, namespace: str) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    metadata = {"name": "data"}
    objects.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim}, namespace=namespace
    )
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    mounts = [{"name": "data", "mountPath": "/data"}]
    printed = output(objects, namespace, "writer", "write", "/data/file", "kept", volumes=volumes, mounts=mounts)
    assert printed == "kept"


def test_the_device_outside_reaches_a_node_port(objects: Objects, namespace: str) -> None:
    objects.apply(pod("web", "serve", ":8080"), namespace=namespace)
    [made] = objects.apply(service("web", type="NodePort"), namespace=namespace)
    wait_until(lambda: phase(objects, namespace, "web") == "Running", "the pod runs")
    url = f"http://{NODE_ADDRESS}:{made['spec']['ports'][0]['nodePort']}"
    script = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=5).read().decode(), end='')"

    def received() -> str:
        command = ["nsenter", f"--net=/run/netns/{DEVICE_NAMESPACE}", "--", "python3", "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    wait_until(lambda: received() == "web", "the device gets an answer", seconds=20)
