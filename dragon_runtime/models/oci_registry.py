"""Files in an OCI registry: a blob's name is the digest of its content, so that a repository and a digest are enough.

Source: OCI Distribution Specification 1.1, "Pulling blobs"; the login is what registries ask for in a 401.
"""

import base64
import re
from collections.abc import AsyncGenerator

import httpx

from dragon_core.errors import OurError
from dragon_runtime.redaction import redacted
from dragon_runtime.settings.groups import is_loopback, may_carry_secrets

SCHEME = "oci://"
ADDRESS = re.compile(r"oci://(?P<host>[^/@]+)/(?P<repository>[a-z0-9]+([._/-]+[a-z0-9]+)*)")


def blob_address(uri: str, sha256: str) -> str:
    """Where the blob with this digest is. A registry on this machine has no TLS.

    Raises:
        OurError: it is no address of a repository.
    """
    found = ADDRESS.fullmatch(uri)
    if found is None:
        raise OurError(
            f"{redacted(uri)} is no repository: write oci://HOST/REPOSITORY, without a tag; "
            "the digest says which file it is"
        )
    host = found["host"]
    scheme = "http" if is_loopback(httpx.URL(f"http://{host}").host) else "https"
    return f"{scheme}://{host}/v2/{found['repository']}/blobs/sha256:{sha256}"


class RegistryLogin(httpx.Auth):
    """Does what a registry asks for: a token from its token server, or the password itself."""

    def __init__(self, credentials: str | None) -> None:
        """`credentials` are USER:PASSWORD; without them a registry that lets everybody read gives a token too.

        Raises:
            OurError: they have another form.
        """
        if credentials is not None and ":" not in credentials:
            raise OurError("the token for a registry must be USER:PASSWORD")
        encoded = base64.b64encode((credentials or "").encode()).decode()
        self._password = {} if credentials is None else {"Authorization": f"Basic {encoded}"}

    @property
    def is_anonymous(self) -> bool:
        """Whether there are no credentials."""
        return not self._password

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """See `httpx.Auth`: only what is asked for is sent."""
        reply = yield request
        if reply.status_code != httpx.codes.UNAUTHORIZED:
            return
        kind, _, rest = reply.headers.get("WWW-Authenticate", "").partition(" ")
        wanted = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if kind.lower() == "basic" and not self.is_anonymous:
            request.headers.update(self._password)
        elif kind.lower() == "bearer" and "realm" in wanted:
            answer = yield self._ask_for_token(wanted)
            await answer.aread()
            if answer.is_error:
                return
            request.headers["Authorization"] = f"Bearer {_token_in(answer)}"
        else:
            return
        yield request

    def _ask_for_token(self, wanted: dict[str, str]) -> httpx.Request:
        realm = httpx.URL(wanted["realm"])
        if not may_carry_secrets(realm.scheme, realm.host):
            raise httpx.RemoteProtocolError(f"its token server {realm.host} is not asked: it has no https address")
        for key in ("service", "scope"):
            if key in wanted:
                realm = realm.copy_set_param(key, wanted[key])
        return httpx.Request("GET", realm, headers=self._password)


def _token_in(answer: httpx.Response) -> str:
    try:
        found = answer.json()
        return str(found.get("token") or found["access_token"])
    except (ValueError, KeyError, AttributeError) as error:
        raise httpx.RemoteProtocolError(f"its token server {answer.url.host} gave no token") from error
