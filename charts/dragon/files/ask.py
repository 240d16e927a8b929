"""Enrols a device, starts its daemon, asks a question, and fails unless the answer was written by both sides."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOKEN_FILE = Path(os.environ.get("JOIN_TOKEN_FILE", "/etc/dragon/join/token"))
BROKER = os.environ.get("BROKER", "helpdesk-broker")
URL = os.environ.get("DEVICE_URL", "http://127.0.0.1:8642")
RETRY_SECONDS = float(os.environ.get("RETRY_SECONDS", "5"))
ATTEMPTS = int(os.environ.get("ATTEMPTS", "60"))
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A device's API is never asked through a proxy."""

NOTE = b"The code of the garage gate is 4711. The gate is locked at ten in the evening.\n"
QUESTION = "What is the code of the garage gate, and when is the gate locked?"


class NotYetError(Exception):
    """What may come about by itself."""


def call(path: str, body: bytes | None = None, content_type: str = "application/json") -> Any:
    """The JSON that the device answers with."""
    request = urllib.request.Request(URL + path, data=body, headers={"Content-Type": content_type})  # noqa: S310 - ours
    try:
        with DIRECT.open(request, timeout=120) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        raise NotYetError(f"{path}: {error.code} {error.read().decode(errors='replace')}") from error
    except OSError as error:
        raise NotYetError(f"{path}: {error}") from error


def inside_the_cluster() -> list[str]:
    """How the broker is reached from here: the token says how from outside, which need not lead back in."""
    try:
        socket.getaddrinfo(BROKER, 8883)
    except OSError:
        return []  # the deployment has a broker of somebody else's
    return [f"--broker-host={BROKER}", "--broker-port=8883", "--enrolment-port=8884"]


def join() -> None:
    """Enrol with the token; a new one appears in the file when this was used."""
    command = ["dragon-edge", "join", "-", *inside_the_cluster()]
    done = subprocess.run(command, input=TOKEN_FILE.read_bytes(), check=False)
    if done.returncode:
        raise NotYetError(f"dragon-edge join ended with {done.returncode}")


def require_ready() -> None:
    """Both ends are there."""
    found = call("/readyz")
    if found["status"] != "ready":
        missing = [f"{name}: {check['message']}" for name, check in found["checks"].items() if not check["ready"]]
        raise NotYetError(f"the device is {found['status']}: {'; '.join(missing)}")


def add_note() -> None:
    """Give the device a document of its own, and wait until it can be found."""
    head = b'--note\r\nContent-Disposition: form-data; name="file"; filename="note.txt"\r\n'
    document = call(
        "/v1/documents",
        head + b"Content-Type: text/plain\r\n\r\n" + NOTE + b"\r\n--note--\r\n",
        "multipart/form-data; boundary=note",
    )
    if document["state"] != "done":
        raise NotYetError(f"the note is {document['state']}: {document['error']}")


def ask() -> dict[str, Any]:
    """Ask, print the answer, and return what the last chunk says about it."""
    asked = {
        "model": call("/v1/models")["data"][0]["id"],
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": 32,
        "stream": True,
    }
    request = urllib.request.Request(  # noqa: S310 - ours
        f"{URL}/v1/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    try:
        with DIRECT.open(request, timeout=300) as reply:
            for line in reply:
                data = line.decode().removeprefix("data:").strip()
                if not data or data == "[DONE]":
                    continue
                chunk = json.loads(data)
                if "error" in chunk:
                    raise NotYetError(f"the answer broke off: {chunk['error']['message']}")
                for choice in chunk["choices"]:
                    print(choice["delta"].get("content") or "", end="", flush=True)
                    if choice["finish_reason"]:
                        print()
                        dragon: dict[str, Any] = chunk["dragon"]
                        return dragon
    except urllib.error.HTTPError as error:
        raise NotYetError(f"the question was refused: {error.read().decode(errors='replace')}") from error
    except OSError as error:
        raise NotYetError(f"the answer broke off: {error}") from error
    raise NotYetError("the answer stopped without an end")


def require_both_sides() -> None:
    """One answer with tokens that both ends mixed, in which both had a part."""
    dragon = ask()
    shares = dragon["shares"]
    print(f"tokens {dragon['num_tokens']}, of both {dragon['mixed_tokens']}, shares {shares}", flush=True)
    if not (dragon["mixed_tokens"] and shares["edge"] and shares["cloud"]):
        raise NotYetError("the answer did not come from both sides")


def keep_trying(step: Callable[[], None], what: str) -> None:
    """Do a step until it succeeds; the last reason is what is reported."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            step()
        except NotYetError as error:
            print(f"{what}: {error}", flush=True)
            if attempt == ATTEMPTS:
                sys.exit(f"FAILED: {what}: {error}")
            time.sleep(RETRY_SECONDS)
        else:
            print(f"{what}: done", flush=True)
            return


def main() -> None:
    """The whole test."""
    keep_trying(join, "join")
    daemon = subprocess.Popen(["dragon-edge", "run"])
    try:
        keep_trying(require_ready, "ready")
        keep_trying(add_note, "note")
        keep_trying(require_both_sides, "question")
    finally:
        daemon.terminate()
        daemon.wait(30)
    print("PASSED: the answer came from both sides", flush=True)


if __name__ == "__main__":
    main()
