"""Passwords: Milvus' root's."""

import secrets as random

from dragon_operator.credentials.secret import KnownSecrets, annotation, decoded, make_secret
from dragon_operator.wanted import names
from dragon_operator.wanted.deployment import Deployment, Object

PASSWORD_BYTES = 32
MAX_FORMER_PASSWORDS = 3
"""Kept, for nobody may have opened the store between two rotations."""


def milvus_password(deployment: Deployment, known: KnownSecrets) -> Object:
    """Root's. The server takes the one that it has first seen: whoever opens the store changes it to this one."""
    name = deployment.child("milvus")
    rotation = deployment.annotations.get(names.ROTATION, "")
    secret = known.own.get(name)
    formers: list[bytes] = []
    if secret is not None and {"password", "token"} <= set(secret.get("data") or {}):
        if annotation(secret, names.ROTATION) == rotation:
            return secret
        former_ones = decoded(secret, names.FORMER_TOKENS) if names.FORMER_TOKENS in secret["data"] else b""
        formers = [decoded(secret, "token"), *former_ones.splitlines()]
    password = random.token_urlsafe(PASSWORD_BYTES)
    values = {"password": password.encode(), "token": f"root:{password}".encode()}
    if formers:
        values[names.FORMER_TOKENS] = b"\n".join(formers[:MAX_FORMER_PASSWORDS])
    return make_secret(deployment, name, values, annotations={names.ROTATION: rotation})
