"""Receives certificate requests and sends answers. `Enrolment` decides the answers."""

import asyncio
import logging
import time
from collections.abc import Callable

from dragon_core.errors import DragonError, PeerError
from dragon_core.fleet.messages import CertificateRequest, CertificateResponse, decode, encode
from dragon_core.topics import FleetTopic, Topics
from dragon_operator.fleet.enrolment import Enrolment
from dragon_operator.fleet.values import DesiredDevice
from dragon_runtime.channel.connection import MqttConnection
from dragon_runtime.process.tasks import end_tasks

logger = logging.getLogger(__name__)

MAX_WAITING = 2000
"""Requests; a device whose request finds no room asks again."""
NUM_WORKERS = 8


class EnrolmentDesk:
    """Takes requests in turn, those of one device one after the other."""

    def __init__(
        self,
        connection: MqttConnection,
        topics: Topics,
        enrolment: Enrolment,
        wanted: Callable[[str], DesiredDevice | None],
    ) -> None:
        self._connection, self._topics, self._enrolment, self._wanted = connection, topics, enrolment, wanted
        self._queues: list[asyncio.Queue[tuple[str, bool, bytes]]] = [
            asyncio.Queue(MAX_WAITING // NUM_WORKERS) for _ in range(NUM_WORKERS)
        ]

    async def start(self) -> None:
        """Listen for requests, and for answers that the broker kept from an operator before."""
        subscribe = self._connection.subscribe
        await subscribe(self._topics.all_enrolment_responses, self._on_kept, qos=1)
        await subscribe(self._topics.all_enrolment_requests, self._on_join, qos=1)
        await subscribe(self._topics.all_fleet(FleetTopic.CERTIFICATE_REQUEST), self._on_renewal, qos=1)

    async def serve(self) -> None:
        """Answer until cancelled."""
        workers = [asyncio.create_task(self._work(queue), name="fleet enrolment worker") for queue in self._queues]
        try:
            await asyncio.gather(*workers)
        finally:
            await end_tasks(workers)

    def _on_join(self, topic: str, payload: bytes) -> None:
        try:
            self._put(self._topics.parse_enrolment(topic), is_renewal=False, payload=payload)
        except PeerError as error:
            logger.debug("%s", error)

    def _on_renewal(self, topic: str, payload: bytes) -> None:
        try:
            self._put(self._topics.parse_fleet(topic)[0], is_renewal=True, payload=payload)
        except PeerError as error:
            logger.debug("%s", error)

    def _on_kept(self, topic: str, payload: bytes) -> None:
        try:
            if payload:
                self._enrolment.restore(self._topics.parse_enrolment(topic), decode(payload, CertificateResponse))
        except PeerError as error:
            logger.debug("%s: %s", topic[:200], error)

    def _put(self, device: str, *, is_renewal: bool, payload: bytes) -> None:
        try:
            self._queues[hash(device) % NUM_WORKERS].put_nowait((device, is_renewal, payload))
        except asyncio.QueueFull:
            logger.warning("too many devices ask for certificates at once: %s has to ask again", device)

    async def _work(self, queue: "asyncio.Queue[tuple[str, bool, bytes]]") -> None:
        while True:
            device, is_renewal, payload = await queue.get()
            try:
                await self._answer(device, payload, is_renewal=is_renewal)
            except DragonError as error:
                logger.warning("device %s gets no answer to its request for a certificate: %s", device, error)

    async def _answer(self, name: str, payload: bytes, *, is_renewal: bool) -> None:
        request = decode(payload, CertificateRequest)
        decide = self._enrolment.renew if is_renewal else self._enrolment.join
        response = await decide(name, request, self._wanted(name), now=time.time())
        if response.refusal is not None:
            logger.info("device %s gets no certificate: %s", name, response.reason)
        if is_renewal:
            topic = self._topics.fleet(name, FleetTopic.CERTIFICATE_RESPONSE)
        else:
            topic = self._topics.enrolment_response(name)
        # Kept by the broker until it is used: the device may be cut off now, and this operator may end.
        is_kept = not is_renewal and response.refusal is None
        await self._connection.publish(topic, encode(response), is_retained=is_kept)
