"""The join token: one printable string with all that a device needs to enrol. Pure.

`dragon-join-` and base64url of JSON, with a check sum: what was cut off or mistyped is told from what is no token.
"""

import base64
import binascii
import hashlib
from typing import Annotated

import msgspec

from dragon_core import limits
from dragon_core.errors import OurError
from dragon_core.topics import require_device_name, require_name

TOKEN_VERSION = 1
PREFIX = "dragon-join-"
MAX_TOKEN_CHARACTERS = 32_768
_SUM_BYTES = 6

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
_Port = Annotated[int, msgspec.Meta(**limits.PORT.keywords())]


class JoinToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whom a device becomes, where the broker is, and the secret that lets it in once. `expires` in Unix seconds."""

    version: int = TOKEN_VERSION
    namespace: _Name
    deployment: _Name
    device: _Name
    broker_host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    broker_port: _Port = 8883
    enrolment_port: _Port = 8884
    ca: Annotated[str, msgspec.Meta(min_length=1, max_length=16_384)]
    """PEM of the authority whose broker is believed."""
    secret: Annotated[str, msgspec.Meta(min_length=16, max_length=256)]
    expires: Annotated[int, msgspec.Meta(ge=0, le=2**53)]

    def __repr__(self) -> str:
        """Without the secret: a token in a log or a trace must not let anybody in."""
        return (
            f"JoinToken(device={self.device!r}, deployment={self.namespace}/{self.deployment}, expires={self.expires})"
        )

    def encode(self) -> str:
        """The string a person copies."""
        content = msgspec.json.encode(self)
        return PREFIX + base64.urlsafe_b64encode(_sum(content) + content).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "JoinToken":
        """Read what a person pasted; white space in it is ignored.

        Raises:
            OurError: it is no token, damaged, or of another version; says what to do. It is not said what stands in it.
        """
        bare = "".join(text.split())
        if not bare.startswith(PREFIX):
            raise OurError(f"this is no join token: one begins with {PREFIX}; copy it from the Secret of the device")
        content = _content(bare.removeprefix(PREFIX))
        try:
            version = msgspec.json.decode(content, type=_Versioned).version
            if version != TOKEN_VERSION:
                raise OurError(
                    f"the join token is of version {version}, this daemon understands {TOKEN_VERSION}: "
                    "use a daemon of the version of the operator"
                )
            token = msgspec.json.decode(content, type=cls)
        except msgspec.MsgspecError as error:
            raise OurError("the join token does not hold what one must hold; ask for a new one") from error
        require_name(token.namespace, what="namespace of the join token")
        require_name(token.deployment, what="deployment of the join token")
        require_device_name(token.device)
        return token


class _Versioned(msgspec.Struct, frozen=True):
    version: int


def _content(encoded: str) -> bytes:
    damaged = "the join token is damaged: copy it again, whole"
    if len(encoded) > MAX_TOKEN_CHARACTERS:
        raise OurError(damaged)
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise OurError(damaged) from error
    given, content = raw[:_SUM_BYTES], raw[_SUM_BYTES:]
    if given != _sum(content):
        raise OurError(damaged)
    return content


def _sum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_SUM_BYTES]
