"""One MQTT client: aiomqtt's, which takes no proxy and ends no wait too late."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import aiomqtt

Result = TypeVar("Result")


class BrokerClient(aiomqtt.Client):
    """Use it as aiomqtt's; made anew for every connection."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        # Where PySocks happens to be installed, paho takes mqtt_proxy of the environment.
        self._client._get_proxy = lambda: None  # type: ignore[method-assign]  # noqa: SLF001 - there is no option

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
