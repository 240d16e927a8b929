"""Commands to the broker's dynamic security plugin, and its answers. `security_plan` decides the commands."""

import asyncio
import json
import logging
import secrets
from collections.abc import Sequence
from typing import Any

from dragon_core.errors import OurError, RetryableError
from dragon_operator.fleet.access import CONTROL_TOPIC
from dragon_operator.fleet.security_plan import BrokerState, ClientState, Command
from dragon_runtime.channel.connection import MqttConnection

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 20.0
BATCH = 20
"""Commands in a message; the plugin writes its file once for each."""

Answer = dict[str, Any]


class SecurityError(OurError):
    """The plugin did not do what it was told."""

    def __init__(self, command: Command, reason: str) -> None:
        name = command.get("username") or command.get("rolename") or ""
        super().__init__(f"the broker refuses {command['command']} {name}: {reason}".replace(" :", ":"))
        self.command, self.reason = command["command"], reason


class DynamicSecurity:
    """Speaks to the plugin over a connection whose client is its administrator."""

    def __init__(self, connection: MqttConnection) -> None:
        self._connection = connection
        self._sender = secrets.token_hex(8)
        self._count = 0
        self._waiting: dict[str, asyncio.Future[Answer]] = {}

    async def start(self) -> None:
        """Listen for answers."""
        await self._connection.subscribe(f"{CONTROL_TOPIC}/response", self._on_answer, qos=1)

    async def run(self, commands: Sequence[Command]) -> list[Answer]:
        """Have commands done in order; returns the data of each answer.

        Raises:
            SecurityError: one was refused; those after it in its batch were still tried, later batches were not.
            RetryableError: there is no connection, or no answer.
        """
        answers: list[Answer] = []
        for start in range(0, len(commands), BATCH):
            answers += await self._run_batch(commands[start : start + BATCH])
        return answers

    async def state(self) -> BrokerState:
        """All clients and roles the broker has.

        Raises:
            SecurityError, RetryableError: see `run`.
        """
        everything = {"verbose": True, "count": -1, "offset": 0}
        clients, roles = await self.run(
            [{"command": "listClients", **everything}, {"command": "listRoles", **everything}]
        )
        return BrokerState(
            clients={
                client["username"]: ClientState(
                    description=client.get("textdescription", ""),
                    roles=frozenset(role["rolename"] for role in client.get("roles", ())),
                    is_disabled=bool(client.get("disabled", False)),
                )
                for client in clients.get("clients", ())
            },
            roles={
                role["rolename"]: frozenset(
                    (entry["acltype"], entry["topic"]) for entry in role.get("acls", ()) if entry.get("allow")
                )
                for role in roles.get("roles", ())
            },
        )

    async def _run_batch(self, commands: Sequence[Command]) -> list[Answer]:
        futures: list[asyncio.Future[Answer]] = []
        sent: list[Command] = []
        for command in commands:
            self._count += 1
            correlation = f"{self._sender}-{self._count}"
            self._waiting[correlation] = asyncio.get_running_loop().create_future()
            futures.append(self._waiting[correlation])
            sent.append({**command, "correlationData": correlation})
        try:
            await self._connection.publish(CONTROL_TOPIC, json.dumps({"commands": sent}).encode())
            async with asyncio.timeout(ANSWER_SECONDS):
                answers = await asyncio.gather(*futures)
        except TimeoutError as error:
            raise RetryableError(
                f"the broker's dynamic security plugin does not answer within {ANSWER_SECONDS:g} s: "
                "is it loaded, and may this client administer it?",
                retry_after_seconds=5.0,
            ) from error
        finally:
            for command in sent:
                self._waiting.pop(command["correlationData"], None)
        for command, answer in zip(commands, answers, strict=True):
            if "error" in answer:
                raise SecurityError(command, str(answer["error"]))
        return [answer.get("data") or {} for answer in answers]

    def _on_answer(self, _topic: str, payload: bytes) -> None:
        try:
            answers = json.loads(payload)["responses"]
            for answer in answers:
                future = self._waiting.get(answer.get("correlationData", ""))
                if future is not None and not future.done():
                    future.set_result(answer)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            logger.warning("the broker's dynamic security plugin sent what cannot be read: %s", error)
