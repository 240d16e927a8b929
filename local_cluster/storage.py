"""Binds claims of pods to folders of this machine and removes what is released: a program of the cluster.

python -m local_cluster.storage KUBECONFIG FOLDER
"""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from local_cluster.layout import STORAGE_CLASS
from local_cluster.objects import Objects

PROVISIONER = "dragon-rag.io/host-path"
POLL_SECONDS = 0.5


def storage_class() -> dict[str, Any]:
    """The default class."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "volumeBindingMode": "Immediate",
    }


def provide(objects: Objects, folder: Path) -> None:
    """Look at all claims and volumes once."""
    for claim in objects.find("v1", "PersistentVolumeClaim"):
        if claim["spec"].get("storageClassName") == STORAGE_CLASS and not claim["spec"].get("volumeName"):
            _create_volume(objects, claim, folder)
    for volume in objects.find("v1", "PersistentVolume"):
        is_ours = volume["spec"].get("storageClassName") == STORAGE_CLASS
        if is_ours and volume.get("status", {}).get("phase") == "Released":
            objects.delete("v1", "PersistentVolume", volume["metadata"]["name"])
            shutil.rmtree(folder / volume["metadata"]["name"], ignore_errors=True)


def _create_volume(objects: Objects, claim: dict[str, Any], folder: Path) -> None:
    metadata = claim["metadata"]
    name = f"pvc-{metadata['uid']}"
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    # A pod's user is not known here, and the group of a pod is not given to such a volume.
    path.chmod(0o777)
    reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "uid": metadata["uid"]}
    objects.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "accessModes": claim["spec"]["accessModes"],
                "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
                "claimRef": {**reference, "name": metadata["name"], "namespace": metadata["namespace"]},
                "hostPath": {"path": str(path), "type": "Directory"},
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": STORAGE_CLASS,
            },
        }
    )


def main() -> None:
    """Command line."""
    kubeconfig, folder = Path(sys.argv[1]), Path(sys.argv[2])
    with Objects(kubeconfig) as objects:
        while True:
            try:
                provide(objects, folder)
            except ApiException as error:
                sys.stderr.write(f"{error.status} {error.reason}\n")
            except (HTTPError, OSError) as error:
                sys.stderr.write(f"{error}\n")
            time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
