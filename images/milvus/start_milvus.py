#!/usr/bin/env -S python3 -W ignore::DeprecationWarning -IB
"""Becomes `milvus run standalone`; before its first start the root user gets the password that the environment names.

Milvus makes its root user with a password that everybody knows unless it finds one. This version has no setting for
another, so its user is written into the empty metadata, as Milvus would. Later starts change nothing.
"""

import base64
import contextlib
import crypt
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

PASSWORD = "COMMON_SECURITY_DEFAULTROOTPASSWORD"  # noqa: S105 - the variable that later versions of Milvus know
AUTHORIZATION = "COMMON_SECURITY_AUTHORIZATIONENABLED"
ROOT_USER = "by-dev/meta/root-coord/credential/users/root"
CLIENT_URL, PEER_URL = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
START_SECONDS = 30.0
BCRYPT_ROUNDS = 1024
MIN_LENGTH, MAX_LENGTH = 6, 72
"""Of a password, as Milvus has it."""


def set_password(folder: Path, password: str) -> None:
    """Make etcd's folder with nothing in it but the root user. All of it is there in the end, or nothing."""
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    command = ["etcd", f"--data-dir={new}", "--log-level=error", "--logger=zap"]
    command += [f"--listen-client-urls={CLIENT_URL}", f"--advertise-client-urls={CLIENT_URL}"]
    # A member keeps the address of its peers' side: Milvus' own etcd has this one.
    command += [f"--listen-peer-urls={PEER_URL}"]
    # It takes variables that begin with ETCD_ for its own, and would stop at those that are meant for Milvus.
    etcd = subprocess.Popen(command, env={"PATH": os.defpath})
    try:
        salt = crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=BCRYPT_ROUNDS)  # noqa: S324 - this is bcrypt
        hashed = crypt.crypt(password, salt)
        _put(etcd, ROOT_USER, json.dumps({"encrypted_password": hashed}))
    finally:
        etcd.terminate()
        etcd.wait()
    new.rename(folder)


def _put(etcd: "subprocess.Popen[bytes]", key: str, value: str) -> None:
    body = {"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value.encode()).decode()}
    request = urllib.request.Request(f"{CLIENT_URL}/v3/kv/put", json.dumps(body).encode())  # noqa: S310 - ours
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it carries a password
    given_up_at = time.monotonic() + START_SECONDS
    while etcd.poll() is None and time.monotonic() < given_up_at:
        with contextlib.suppress(OSError), direct.open(request, timeout=5):
            return
        time.sleep(0.1)
    sys.exit("start-milvus: etcd did not take the password of root; is the volume writable?")


def _prepare() -> None:
    folder = Path(os.environ["ETCD_DATA_DIR"])
    password = os.environ.pop(PASSWORD, "")
    is_guarded = os.environ.get(AUTHORIZATION, "").lower() == "true"
    if folder.exists() or not is_guarded:
        return
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        sys.exit(
            f"start-milvus: set {PASSWORD} to a password of root of {MIN_LENGTH} to {MAX_LENGTH} characters "
            f"(or {AUTHORIZATION}=false, where nobody else reaches this server)"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        set_password(folder, password)
    except OSError as error:
        sys.exit(f"start-milvus: {folder.parent} cannot be written: {error}")


def main() -> None:
    """Prepare, and become the command that was given."""
    command = sys.argv[1:]
    if command[:2] == ["milvus", "run"]:
        _prepare()
        os.environ["LD_LIBRARY_PATH"] = "/milvus/lib"
    os.execvp(command[0], command)  # noqa: S606 - what the container was told to run


if __name__ == "__main__":
    main()
