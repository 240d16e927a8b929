"""Renews the certificate before it expires, over a connection made with the current one, with a new key each time."""

import asyncio
import contextlib
import datetime as dt
import logging
import secrets
from collections.abc import Callable
from typing import Self

from dragon_core.errors import DragonError, OurError, PeerError, RetryableError
from dragon_core.fleet.messages import CertificateRequest, CertificateResponse, Refusal, decode, encode
from dragon_core.topics import FleetTopic, Topics
from dragon_runtime.certificates import KeyAndRequest
from dragon_runtime.channel.connection import MqttConnection
from dragon_runtime.process.tasks import end_tasks
from edge_daemon.identity import DeviceIdentity, IdentityStore

logger = logging.getLogger(__name__)

RENEWED_AT = 2 / 3
"""Part of a certificate's life after which it is renewed."""
MAX_SLEEP_SECONDS = 3600.0
"""A clock may be set, and a machine may sleep: look again at least so often."""
ANSWER_SECONDS = 30.0
RETRY_SECONDS = 60.0


class Renewal:
    """Use it inside `async with`, in the scope of the connection; `on_renewed` gets each new identity."""

    def __init__(
        self,
        connection: MqttConnection,
        topics: Topics,
        store: IdentityStore,
        identity: DeviceIdentity,
        *,
        on_renewed: Callable[[DeviceIdentity], None],
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._connection, self._topics, self._store, self._identity = connection, topics, store, identity
        self._on_renewed, self._clock = on_renewed, clock
        self._answers: asyncio.Queue[CertificateResponse] = asyncio.Queue(maxsize=16)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        topic = self._topic(FleetTopic.CERTIFICATE_RESPONSE)
        await self._connection.subscribe(topic, self._on_answer, qos=1)
        self._task = asyncio.create_task(self._renew_for_ever(), name="certificate renewal")
        return self

    async def __aexit__(self, *error: object) -> None:
        await end_tasks([] if self._task is None else [self._task])

    def _topic(self, kind: FleetTopic) -> str:
        return self._topics.fleet(self._identity.membership.device, kind)

    def _on_answer(self, _topic: str, payload: bytes) -> None:
        with contextlib.suppress(PeerError, asyncio.QueueFull):
            self._answers.put_nowait(decode(payload, CertificateResponse))

    async def _renew_for_ever(self) -> None:
        while True:
            certificate = self._identity.certificate
            due = certificate.begins + RENEWED_AT * (certificate.expires - certificate.begins)
            wait = (due - self._clock()).total_seconds()
            if wait > 0:
                await asyncio.sleep(min(wait, MAX_SLEEP_SECONDS))
                continue
            await self._connection.wait_until_connected()
            try:
                await self._renew()
            except (DragonError, OSError) as error:
                left = (certificate.expires - self._clock()).total_seconds() / 86_400
                logger.warning("the certificate expires in %.1f days and was not renewed: %s", left, error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _renew(self) -> None:
        membership = self._identity.membership
        made = KeyAndRequest.make(membership.device)
        request = CertificateRequest(nonce=secrets.token_hex(16), csr=made.csr.decode())
        await self._connection.publish(self._topic(FleetTopic.CERTIFICATE_REQUEST), encode(request))
        response = await self._answer_to(request)
        if response.refusal is Refusal.TRY_AGAIN:
            raise RetryableError(response.reason, retry_after_seconds=RETRY_SECONDS)
        if response.refusal is not None:
            raise OurError(f"the operator refuses: {response.reason}")
        self._store.install(
            membership, key=made.key_pem, certificate=response.certificate.encode(), ca=response.ca.encode()
        )
        renewed = self._store.load()
        if renewed is None:
            raise OurError("the identity is missing: was this device reset?")
        self._identity = renewed
        logger.info("the certificate was renewed: valid until %s", renewed.certificate.expires.date())
        self._on_renewed(renewed)

    async def _answer_to(self, request: CertificateRequest) -> CertificateResponse:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while (response := await self._answers.get()).nonce != request.nonce:
                    pass
        except TimeoutError as error:
            raise RetryableError("the operator does not answer", retry_after_seconds=RETRY_SECONDS) from error
        return response
