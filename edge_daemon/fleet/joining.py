"""Enrolment: exchanges a join token for an identity. The key is created here and never leaves the device."""

import asyncio
import contextlib
import datetime as dt
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt
import msgspec

from dragon_core.errors import DragonError, OurError, PeerError, RetryableError
from dragon_core.fleet.join_token import JoinToken
from dragon_core.fleet.messages import CertificateRequest, CertificateResponse, Refusal, decode, encode, secret_digest
from dragon_core.topics import JOIN_PREFIX, Topics
from dragon_runtime.certificates import IssuedCertificate
from dragon_runtime.channel.client import BrokerClient
from edge_daemon.fleet.reachability import require_tls_server
from edge_daemon.identity import DeviceIdentity, IdentityStore, Membership

Say = Callable[[str], None]

CONNECT_SECONDS = 15.0
REPEAT_SECONDS = 5.0
MAX_SKEW_SECONDS = 300
_REFUSED_LOGINS = {4, 5, 134, 135}
"""Reason codes of a broker that does not know the user, or not this password."""


class TokenRefusedError(OurError):
    """The token is no longer valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """One enrolment. `say` is told what happens; `answer_seconds` is how long the operator may take.

    `instead` is where the broker is for this device, when it is not where the token says: `broker_host`, `broker_port`,
    `enrolment_port`.
    """

    data_folder: Path
    say: Say
    instead: Mapping[str, str | int] = field(default_factory=dict)
    answer_seconds: float = 60.0
    clock: Callable[[], float] = time.time

    async def join(self, text: str) -> DeviceIdentity:
        """Enrol with a token; returns the identity that is on disk from now on.

        Raises:
            DragonError: enrolment failed; says why and what to do. Unless it says otherwise, the token stays usable.
        """
        token = msgspec.structs.replace(JoinToken.decode(text), **self.instead)
        store = IdentityStore(self.data_folder)
        self._require_free(store, token)
        self._require_time_left(token)
        self.say(f"device {token.device} of {token.namespace}/{token.deployment}")
        where = f"{token.broker_host}:{token.enrolment_port}"
        context = _trust(token)
        await require_tls_server(token.broker_host, token.enrolment_port, context, clock=self.clock)
        self.say(f"reached the broker at {where}")
        try:
            key, request = store.pending(
                token.device, token_digest=secret_digest(token.secret), nonce=secrets.token_hex(16)
            )
            self.say("created a key, which stays on this device, and a certificate request")
            response = await self._ask(token, request, context)
            self._require_certificate(token, response)
            membership = Membership(
                namespace=token.namespace,
                deployment=token.deployment,
                device=token.device,
                broker_host=token.broker_host,
                broker_port=token.broker_port,
            )
            store.install(membership, key=key, certificate=response.certificate.encode(), ca=response.ca.encode())
            store.forget_pending()
        except OSError as error:
            raise OurError(f"the identity cannot be stored in {store.folder}: {error}") from error
        identity = store.load()
        if identity is None:
            raise OurError(f"the identity in {store.folder} disappeared while it was written")
        self.say(f"certificate {identity.certificate.serial_number} until {identity.certificate.expires:%Y-%m-%d}")
        return identity

    def _require_free(self, store: IdentityStore, token: JoinToken) -> None:
        try:
            known = store.load()
        except OurError:
            return  # a damaged one is replaced
        if known is None:
            return
        ours, theirs = known.membership, token
        same = (ours.namespace, ours.deployment, ours.device) == (theirs.namespace, theirs.deployment, theirs.device)
        if not same:
            raise OurError(
                f"this device is already enrolled, as {ours.device} of {ours.namespace}/{ours.deployment}: "
                "run `dragon-edge reset` first"
            )

    def _require_time_left(self, token: JoinToken) -> None:
        now = self.clock()
        if token.expires <= now:
            raise TokenRefusedError(
                f"the join token expired at {_shown(token.expires)}; this device's clock says {_shown(now)}: "
                "ask for a new token, or set the clock"
            )

    async def _ask(self, token: JoinToken, request: CertificateRequest, context: ssl.SSLContext) -> CertificateResponse:
        """The operator's answer."""
        topics = Topics(token.namespace, token.deployment)
        deadline = asyncio.get_running_loop().time() + self.answer_seconds
        async with _connected(token, context) as client:
            await client.subscribe(topics.enrolment_response(token.device), qos=1)
            self.say("asked for a certificate")
            while asyncio.get_running_loop().time() < deadline:
                await client.publish(topics.enrolment_request(token.device), encode(request), qos=1)
                response = await _answer(client, request)
                if response is not None and response.refusal is not Refusal.TRY_AGAIN:
                    self._warn_of_skew(response)
                    return response
                if response is not None:
                    self.say(f"not yet: {response.reason}")
                    await asyncio.sleep(REPEAT_SECONDS)
        raise RetryableError(
            f"the broker accepts the token, but the operator did not answer within {self.answer_seconds:.0f} s: "
            "check whether the operator runs, then try again with the same token",
            retry_after_seconds=60.0,
        )

    def _require_certificate(self, token: JoinToken, response: CertificateResponse) -> None:
        match response.refusal:
            case None:
                pass
            case Refusal.TOKEN_EXPIRED | Refusal.TOKEN_USED | Refusal.NOT_WANTED:
                raise TokenRefusedError(f"the operator refuses the token: {response.reason}")
            case Refusal.REVOKED:
                raise TokenRefusedError(f"the device {token.device} is revoked: only its administrator can change that")
            case _:
                raise OurError(f"the operator refuses the request: {response.reason}")
        try:
            issued = IssuedCertificate.load(response.certificate.encode())
        except ValueError as error:
            raise PeerError("the operator sent a certificate that cannot be read") from error
        now = dt.datetime.fromtimestamp(self.clock(), dt.UTC)
        if not issued.begins <= now < issued.expires:
            raise OurError(
                f"the certificate is valid from {_shown(issued.begins.timestamp())} to "
                f"{_shown(issued.expires.timestamp())}; this device's clock says {_shown(now.timestamp())}: "
                "set the clock and join again with the same token"
            )

    def _warn_of_skew(self, response: CertificateResponse) -> None:
        skew = self.clock() - response.time
        if abs(skew) > MAX_SKEW_SECONDS:
            direction = "ahead of" if skew > 0 else "behind"
            self.say(f"warning: this device's clock is {abs(skew) / 60:.0f} minutes {direction} the operator's; set it")


@contextlib.asynccontextmanager
async def _connected(token: JoinToken, context: ssl.SSLContext) -> AsyncIterator[BrokerClient]:
    client = BrokerClient(
        token.broker_host,
        token.enrolment_port,
        identifier=f"{JOIN_PREFIX}{token.device}-{secrets.token_hex(4)}",
        username=JOIN_PREFIX + token.device,
        password=token.secret,
        protocol=aiomqtt.ProtocolVersion.V5,
        timeout=CONNECT_SECONDS,
        tls_context=context,
    )
    try:
        async with client:
            yield client
    except aiomqtt.MqttCodeError as error:
        code = getattr(error.rc, "value", error.rc)
        if code in _REFUSED_LOGINS:
            raise TokenRefusedError(
                "the broker refuses this token: it was used, has expired, or a newer one exists. Ask for a new one"
            ) from error
        raise _broken(error) from error
    except aiomqtt.MqttError as error:
        raise _broken(error) from error


def _broken(error: Exception) -> DragonError:
    return RetryableError(
        f"the connection to the broker broke off: {error}; try again with the same token", retry_after_seconds=5.0
    )


async def _answer(client: BrokerClient, request: CertificateRequest) -> CertificateResponse | None:
    """The answer to this request; None when none came for a while. Those to others' requests are passed over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REPEAT_SECONDS):
            async for message in client.messages:
                payload = message.payload
                with contextlib.suppress(PeerError):
                    response = decode(payload if isinstance(payload, bytes) else b"", CertificateResponse)
                    if response.nonce == request.nonce:
                        return response
    return None


def _trust(token: JoinToken) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=token.ca)
    except (ssl.SSLError, ValueError) as error:
        raise OurError("the join token contains no certificate of an authority; ask for a new one") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _shown(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
