"""A managed mosquitto broker: its configuration, a Deployment, and the Service devices reach."""

from dragon_core.topics import Topics
from dragon_operator.objects.broker_files import SECURITY_FILE, cluster_configuration, initial_security
from dragon_operator.objects.metadata import container, metadata, pod_template, secret_volume, service
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object, digest
from dragon_operator.wanted.names import Component
from dragon_operator.wanted.spec import ManagedBroker

CONFIGURATION_FILE = "mosquitto.conf"


def broker_objects(deployment: Deployment) -> list[Object]:
    """Everything of a managed broker; nothing for an external one."""
    managed = deployment.spec.broker.managed
    if managed is None:
        return []
    return [_configuration(deployment), _deployment(deployment, managed), _service(deployment, managed)]


def server_hosts(deployment: Deployment) -> list[str]:
    """The names and addresses in a certificate that the operator issues to the broker."""
    managed = deployment.spec.broker.managed
    inner = deployment.host(Component.BROKER)
    own = [deployment.child("broker"), inner.removesuffix(".svc"), inner, f"{inner}.cluster.local"]
    return [*own, *(managed.hosts if managed is not None else [])]


def _files(deployment: Deployment) -> dict[str, str]:
    configuration = cluster_configuration(
        tls_folder=names.TLS_FOLDER, data_folder=names.DATA_FOLDER, crl_file=f"{names.CRL_FOLDER}/crl.pem"
    )
    topics = Topics(deployment.namespace, deployment.name)
    return {CONFIGURATION_FILE: configuration, SECURITY_FILE: initial_security(topics)}


def _configuration(deployment: Deployment) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(deployment, deployment.child("broker"), Component.BROKER),
        "data": _files(deployment),
    }


def _deployment(deployment: Deployment, managed: ManagedBroker) -> Object:
    probe = {"tcpSocket": {"port": names.BROKER_PORT}, "timeoutSeconds": 5}
    image = managed.image or deployment.images.broker
    server = container(
        deployment,
        "broker",
        image,
        managed,
        ports=[
            {"name": "mqtts", "containerPort": names.BROKER_PORT},
            {"name": "enrolment", "containerPort": names.ENROLMENT_PORT},
        ],
        readinessProbe={**probe, "periodSeconds": 5},
        livenessProbe={**probe, "periodSeconds": 20, "failureThreshold": 5},
        volumeMounts=[
            {"name": "configuration", "mountPath": names.CONFIG_FOLDER, "readOnly": True},
            {"name": "tls", "mountPath": names.TLS_FOLDER, "readOnly": True},
            {"name": "crl", "mountPath": names.CRL_FOLDER, "readOnly": True},
            {"name": "data", "mountPath": names.DATA_FOLDER},
        ],
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(deployment, deployment.child("broker"), Component.BROKER),
        "spec": {
            "replicas": 0 if deployment.spec.suspend else 1,
            # Two brokers at once would split the fleet.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": names.selector(deployment.name, Component.BROKER)},
            "template": pod_template(
                deployment,
                Component.BROKER,
                managed,
                checksum=digest(_files(deployment), image),
                containers=[server],
                volumes=[
                    _configuration_volume(deployment),
                    secret_volume("tls", deployment.child(names.BROKER_IDENTITY)),
                    secret_volume("crl", deployment.child("broker-crl")),
                    # After a loss the operator sends again which clients may connect.
                    {"name": "data", "emptyDir": {}},
                ],
                terminationGracePeriodSeconds=10,
            ),
        },
    }


def _configuration_volume(deployment: Deployment) -> Object:
    return {"name": "configuration", "configMap": {"name": deployment.child("broker")}}


def _service(deployment: Deployment, managed: ManagedBroker) -> Object:
    made = service(deployment, Component.BROKER, {"mqtts": names.BROKER_PORT, "enrolment": names.ENROLMENT_PORT})
    made["spec"]["type"] = managed.service.type
    node_ports = (managed.service.node_port, managed.service.enrolment_node_port)
    for port, node_port in zip(made["spec"]["ports"], node_ports, strict=True):
        if node_port is not None:
            port["nodePort"] = node_port
    if managed.service.annotations:
        made["metadata"]["annotations"] = managed.service.annotations
    return made
