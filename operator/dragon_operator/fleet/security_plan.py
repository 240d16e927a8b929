"""Commands that bring a broker's clients and roles to the desired state. Pure: data in, data out.

Clients of ours carry a mark in their description; others of the same broker are never touched.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dragon_core.topics import JOIN_PREFIX, FleetTopic, Topics
from dragon_operator.fleet.access import CLOUD_PEER, both_ways, cloud_peer_entries, receive, send
from dragon_operator.fleet.values import DesiredDevice, JoinSecret

Command = dict[str, Any]
Entries = list[dict[str, Any]]

DEVICE_MARK = "dragon device"
JOIN_MARK = "dragon join "
DEVICE_ROLE, JOIN_ROLE = "dragon-device-", "dragon-join-"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientState:
    """A client as the broker has it."""

    description: str = ""
    roles: frozenset[str] = frozenset()
    is_disabled: bool = False


@dataclass(frozen=True, slots=True)
class BrokerState:
    """Clients by user name, and what each role may do as (kind, topic) pairs."""

    clients: Mapping[str, ClientState]
    roles: Mapping[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityPlan:
    """`removed` are devices that were known and are not wanted; `used_joins` (device, digest) of tokens used before."""

    commands: tuple[Command, ...]
    problems: Mapping[str, str]
    removed: tuple[str, ...]
    used_joins: frozenset[tuple[str, str]]


def join_client(device: str) -> str:
    """The user name a device enrols with."""
    return JOIN_PREFIX + device


def close_join(device: str) -> Command:
    """A used token: its client stays as the memory of that, and cannot log in."""
    return {"command": "disableClient", "username": join_client(device)}


def plan_security(
    state: BrokerState,
    devices: Sequence[DesiredDevice],
    topics: Topics,
    *,
    now: float,
    used: Collection[tuple[str, str]] = (),
    kept: Collection[str] = (),
) -> SecurityPlan:
    """`used` are (device, digest) of tokens known to be used, `now` in Unix seconds, `kept` devices left as they are.

    Doing what the plan says and planning again gives no commands but those of revocation.
    """
    commands = _cloud_peer(state, topics)
    problems: dict[str, str] = {}
    found_used: set[tuple[str, str]] = set()
    for device in devices:
        known = state.clients.get(device.name)
        if known is not None and known.description != DEVICE_MARK:
            problems[device.name] = (
                f"the broker has a client {device.name} that is not of this fleet: "
                "give the device another name, or remove the client"
            )
            continue
        commands += _revoked(state, device.name) if device.is_revoked else _device(state, device.name, topics)
        is_open = device.join is not None and not device.is_revoked and device.join.expires > now
        if device.join is not None and is_open:
            key = (device.name, device.join.digest)
            if key in used or _is_closed(state, device.name, device.join):
                found_used.add(key)
                commands += _closed_join(state, device.name, device.join)
            else:
                commands += _open_join(state, device.name, device.join, topics)
        else:
            commands += _forget(state, join_client(device.name), JOIN_ROLE + device.name)
    removed = _unwanted(state, {*kept, *(device.name for device in devices)})
    for name in removed:
        commands += _forget(state, name, DEVICE_ROLE + name)
        commands += _forget(state, join_client(name), JOIN_ROLE + name)
    return SecurityPlan(
        commands=tuple(commands), problems=problems, removed=tuple(removed), used_joins=frozenset(found_used)
    )


def retained_topics(topics: Topics, device: str) -> tuple[str, ...]:
    """Topics on which the broker may retain messages of a device."""
    kinds = (FleetTopic.PRESENCE, FleetTopic.DESIRED, FleetTopic.REPORTED)
    return (*(topics.fleet(device, kind) for kind in kinds), topics.enrolment_response(device))


def _cloud_peer(state: BrokerState, topics: Topics) -> list[Command]:
    commands = _role(state, CLOUD_PEER, cloud_peer_entries(topics))
    if CLOUD_PEER not in state.clients:
        commands.append(_create(CLOUD_PEER, CLOUD_PEER, "dragon cloud peers"))
    return commands


def _device(state: BrokerState, name: str, topics: Topics) -> list[Command]:
    role = DEVICE_ROLE + name
    commands = _role(state, role, both_ways(f"{topics.device(name)}/#"))
    known = state.clients.get(name)
    if known is None:
        commands.append(_create(name, role, DEVICE_MARK))
    elif known.roles != {role}:
        commands.append({"command": "modifyClient", "username": name, "roles": [{"rolename": role}]})
    elif not known.is_disabled:
        return commands
    # With its certificate it may be connected already; what it subscribed to was denied without a word: it begins anew.
    return [*commands, *({"command": command, "username": name} for command in ("disableClient", "enableClient"))]


def _revoked(state: BrokerState, name: str) -> list[Command]:
    """Its role goes, so that nothing is allowed any more; disabling ends its connection, and one it made since."""
    commands: list[Command] = []
    known = state.clients.get(name)
    if known is None:
        commands.append({"command": "createClient", "username": name, "textdescription": DEVICE_MARK})
    roles = sorted(known.roles) if known is not None else ()
    commands += [{"command": "removeClientRole", "username": name, "rolename": role} for role in roles]
    if DEVICE_ROLE + name in state.roles:
        # After the client let go of it: mosquitto 2.0.11 breaks when a role goes that a client has.
        commands.append({"command": "deleteRole", "rolename": DEVICE_ROLE + name})
    commands.append({"command": "disableClient", "username": name})
    return commands


def _is_closed(state: BrokerState, name: str, join: JoinSecret) -> bool:
    """Whether the broker remembers that this token was used."""
    known = state.clients.get(join_client(name))
    return known is not None and known.description == JOIN_MARK + join.digest and known.is_disabled


def _closed_join(state: BrokerState, name: str, join: JoinSecret) -> list[Command]:
    """A used token's client: it has no password and is disabled."""
    if _is_closed(state, name, join):
        return []
    user, commands = join_client(name), list[Command]()
    known = state.clients.get(user)
    if known is not None and known.description == JOIN_MARK + join.digest:
        return [close_join(name)]
    if known is not None:
        commands.append({"command": "deleteClient", "username": user})
    made = {"command": "createClient", "username": user, "textdescription": JOIN_MARK + join.digest}
    return [*commands, made, close_join(name)]


def _open_join(state: BrokerState, name: str, join: JoinSecret, topics: Topics) -> list[Command]:
    user, role, mark = join_client(name), JOIN_ROLE + name, JOIN_MARK + join.digest
    entries = [send(topics.enrolment_request(name)), *receive(topics.enrolment_response(name))]
    known = state.clients.get(user)
    commands = _role(state, role, entries)
    if known is not None and (known.description, known.roles) == (mark, frozenset({role})):
        return commands
    if known is not None:
        commands.append({"command": "deleteClient", "username": user})
    return [*commands, {**_create(user, role, mark), "password": join.secret}]


def _forget(state: BrokerState, user: str, role: str) -> list[Command]:
    known, commands = state.clients.get(user), list[Command]()
    if known is not None and (known.description == DEVICE_MARK or known.description.startswith(JOIN_MARK)):
        commands.append({"command": "deleteClient", "username": user})
    if role in state.roles:
        commands.append({"command": "deleteRole", "rolename": role})
    return commands


def _unwanted(state: BrokerState, wanted: set[str]) -> list[str]:
    names = {user for user, known in state.clients.items() if known.description == DEVICE_MARK}
    names |= {
        user.removeprefix(JOIN_PREFIX)
        for user, known in state.clients.items()
        if known.description.startswith(JOIN_MARK)
    }
    for prefix in (DEVICE_ROLE, JOIN_ROLE):
        names |= {role.removeprefix(prefix) for role in state.roles if role.startswith(prefix)}
    return sorted(names - wanted)


def _role(state: BrokerState, role: str, entries: Entries) -> list[Command]:
    known = state.roles.get(role)
    if known == frozenset((entry["acltype"], entry["topic"]) for entry in entries):
        return []
    return [{"command": "createRole" if known is None else "modifyRole", "rolename": role, "acls": entries}]


def _create(user: str, role: str, description: str) -> Command:
    return {
        "command": "createClient",
        "username": user,
        "textdescription": description,
        "roles": [{"rolename": role}],
    }
