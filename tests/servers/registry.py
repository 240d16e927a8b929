"""A real OCI registry on a loopback port."""

import shutil
import subprocess
from pathlib import Path
from typing import Self

import httpx
import pytest
import yaml

from dragon_runtime.servers.mosquitto import free_port
from local_cluster.waiting import wait_until

USER, PASSWORD = "reader", "one-of-the-tests"
HASH = "$2b$05$BTDcV48mSw4Bci0Lq0IJl.hP3Ww7COWqsAV26mVoiV5bIHVBKMn6O"


class Registry:
    """Use it as a context. With `is_private` only the user of this file gets in."""

    def __init__(self, folder: Path, *, is_private: bool = False) -> None:
        self.host = f"127.0.0.1:{free_port()}"
        self._login = (USER, PASSWORD) if is_private else None
        folder.mkdir(parents=True)
        settings = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}},
            "http": {"addr": self.host},
        }
        if is_private:
            (folder / "htpasswd").write_text(f"{USER}:{HASH}\n")
            settings["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
        self._settings, self._log = folder / "config.yml", folder / "log"
        self._settings.write_text(yaml.safe_dump(settings))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = shutil.which("docker-registry")
        if program is None:
            pytest.skip("docker-registry is missing (Debian, Ubuntu: sudo apt-get install docker-registry)")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([program, "serve", str(self._settings)], stdout=log, stderr=log)
        wait_until(self._answers, "the registry answers", seconds=30)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            return httpx.get(f"http://{self.host}/v2/", auth=self._login).is_success
        except httpx.TransportError:
            return False

    def push(self, repository: str, content: bytes, sha256: str) -> None:
        """Put a blob there."""
        with httpx.Client(base_url=f"http://{self.host}", auth=self._login) as client:
            begun = client.post(f"/v2/{repository}/blobs/uploads/").raise_for_status()
            place = httpx.URL(begun.headers["Location"]).copy_set_param("digest", f"sha256:{sha256}")
            headers = {"Content-Type": "application/octet-stream"}
            client.put(place, content=content, headers=headers).raise_for_status()
