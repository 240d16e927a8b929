"""One MQTT client: aiomqtt's, which takes no proxy, knows the broker's packet limit, and ends no wait too late."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import aiomqtt

Result = TypeVar("Result")


class BrokerClient(aiomqtt.Client):
    """Use it as aiomqtt's; made anew for every connection."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.max_packet_bytes: int | None = None
        """Largest packet that the broker takes, from the moment it said so; None without a limit."""
        # Where PySocks happens to be installed, paho takes mqtt_proxy of the environment.
        self._client._get_proxy = lambda: None  # type: ignore[method-assign]  # noqa: SLF001 - there is no option

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        self.max_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    async def _wait_for(self, fut: Awaitable[Result], timeout: float | None) -> Result:  # noqa: ASYNC109 - aiomqtt's
        """What the broker was asked for; not for `timeout` seconds when the connection ends meanwhile."""
        waiting = asyncio.ensure_future(super()._wait_for(fut, timeout))
        try:
            await asyncio.wait((waiting, self._disconnected), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done() and (error := self._disconnected.exception()) is not None:
                raise aiomqtt.MqttError(f"the connection ended: {error}") from error
            return await waiting
        finally:
            waiting.cancel()


def packet_bytes(topic: str, payload: bytes, *, qos: int) -> int:
    """Size of a PUBLISH packet without properties. Source: MQTT 5, sections 2.1 and 3.3."""
    rest = 2 + len(topic.encode()) + (2 if qos else 0) + 1 + len(payload)
    num_length_bytes = 1 + (rest > 0x7F) + (rest > 0x3FFF) + (rest > 0x1FFFFF)
    return 1 + num_length_bytes + rest
