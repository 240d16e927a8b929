"""What the broker is told, planned from what it has; played on a broker of plain data."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dragon_core.topics import Topics
from dragon_operator.fleet.security_plan import (
    DEVICE_ROLE,
    BrokerState,
    ClientState,
    Command,
    close_join,
    join_client,
    plan_security,
)
from dragon_operator.fleet.values import DesiredDevice, JoinSecret

TOPICS = Topics("ns", "dep")
NOW = 1000.0


class PaperBroker:
    """Does what the plugin does; `disconnected` counts whose connections ended."""

    def __init__(self) -> None:
        self.clients: dict[str, dict[str, Any]] = {}
        self.roles: dict[str, frozenset[tuple[str, str]]] = {}
        self.disconnected: list[str] = []

    def run(self, commands: tuple[Command, ...] | list[Command]) -> None:
        for command in commands:
            user, role = command.get("username", ""), command.get("rolename", "")
            match command["command"]:
                case "createClient":
                    assert user not in self.clients
                    roles = {given["rolename"] for given in command.get("roles", ())}
                    assert roles <= self.roles.keys()
                    self.clients[user] = {**command, "roles": roles, "disabled": False}
                case "modifyClient":
                    self.clients[user]["roles"] = {given["rolename"] for given in command["roles"]}
                case "removeClientRole":
                    self.clients[user]["roles"].remove(role)
                case "deleteClient":
                    del self.clients[user]
                    self.disconnected.append(user)
                case "disableClient":
                    self.clients[user]["disabled"] = True
                    self.disconnected.append(user)
                case "enableClient":
                    self.clients[user]["disabled"] = False
                case "createRole" | "modifyRole":
                    assert (role in self.roles) == (command["command"] == "modifyRole")
                    self.roles[role] = frozenset((entry["acltype"], entry["topic"]) for entry in command["acls"])
                case "deleteRole":
                    # mosquitto 2.0.11 breaks when a role goes that a client has.
                    assert all(role not in client["roles"] for client in self.clients.values())
                    del self.roles[role]
                case other:
                    raise AssertionError(other)

    @property
    def state(self) -> BrokerState:
        clients = {
            user: ClientState(
                description=client.get("textdescription", ""),
                roles=frozenset(client["roles"]),
                is_disabled=client["disabled"],
            )
            for user, client in self.clients.items()
        }
        return BrokerState(clients=clients, roles=dict(self.roles))

    def sync(self, *devices: DesiredDevice, used: frozenset[tuple[str, str]] = frozenset()) -> dict[str, str]:
        plan = plan_security(self.state, devices, TOPICS, now=NOW, used=used)
        self.run(plan.commands)
        return dict(plan.problems)


def join(letter: str = "a", *, expires: int = 2000) -> JoinSecret:
    return JoinSecret(secret=letter * 32, expires=expires)


def test_a_device_may_touch_its_own_subtree() -> None:
    broker = PaperBroker()
    broker.sync(DesiredDevice(name="d1"))
    (role,) = broker.clients["d1"]["roles"]
    assert {topic for _, topic in broker.roles[role]} == {f"{TOPICS.device('d1')}/#"}
    assert "password" not in broker.clients["d1"]


def test_a_join_client_may_ask_and_hear_the_answer() -> None:
    broker = PaperBroker()
    broker.sync(DesiredDevice(name="d1", join=join()))
    client = broker.clients[join_client("d1")]
    assert client["password"] == "a" * 32
    (role,) = client["roles"]
    assert broker.roles[role] == {
        ("publishClientSend", TOPICS.enrolment_request("d1")),
        ("publishClientReceive", TOPICS.enrolment_response("d1")),
        ("subscribePattern", TOPICS.enrolment_response("d1")),
    }


def test_a_used_token_stays_closed_and_a_new_one_opens() -> None:
    broker = PaperBroker()
    device = DesiredDevice(name="d1", join=join("a"))
    broker.sync(device)
    broker.run([close_join("d1")])
    broker.sync(device)
    assert broker.clients[join_client("d1")]["disabled"]
    broker.sync(DesiredDevice(name="d1", join=join("b")))
    assert not broker.clients[join_client("d1")]["disabled"]
    assert broker.clients[join_client("d1")]["password"] == "b" * 32


def test_a_token_the_operator_knows_to_be_used_is_closed_in_a_broker_that_forgot() -> None:
    broker = PaperBroker()
    device = DesiredDevice(name="d1", join=join())
    broker.sync(device, used=frozenset({("d1", join().digest)}))
    assert broker.clients[join_client("d1")]["disabled"]
    assert "password" not in broker.clients[join_client("d1")]


def test_an_expired_token_is_taken_away() -> None:
    broker = PaperBroker()
    broker.sync(DesiredDevice(name="d1", join=join()))
    broker.sync(DesiredDevice(name="d1", join=join(expires=999)))
    assert join_client("d1") not in broker.clients


def test_revoking_takes_the_role_and_ends_the_connection_each_time() -> None:
    broker = PaperBroker()
    broker.sync(DesiredDevice(name="d1", join=join()))
    broker.disconnected.clear()
    broker.sync(DesiredDevice(name="d1", join=join(), is_revoked=True))
    assert broker.clients["d1"]["roles"] == set()
    assert DEVICE_ROLE + "d1" not in broker.roles
    assert join_client("d1") not in broker.clients
    broker.sync(DesiredDevice(name="d1", is_revoked=True))
    assert broker.disconnected.count("d1") == 2
    broker.sync(DesiredDevice(name="d1"))
    assert broker.clients["d1"]["roles"] == {DEVICE_ROLE + "d1"}
    assert not broker.clients["d1"]["disabled"]
    # What it subscribed to while it was revoked was denied: it must connect anew.
    assert broker.disconnected.count("d1") == 3
    broker.sync(DesiredDevice(name="d1"))
    assert broker.disconnected.count("d1") == 3


def test_clients_of_others_are_never_touched() -> None:
    broker = PaperBroker()
    broker.run([{"command": "createClient", "username": "d1", "password": "x"}])
    before = dict(broker.clients["d1"])
    problems = broker.sync(DesiredDevice(name="d1", is_revoked=True), DesiredDevice(name="d2"))
    broker.sync()
    assert set(problems) == {"d1"}
    assert broker.clients["d1"] == before


def test_a_changed_role_is_repaired() -> None:
    broker = PaperBroker()
    broker.sync(DesiredDevice(name="d1"))
    broker.roles[DEVICE_ROLE + "d1"] = frozenset({("publishClientSend", "#")})
    broker.clients["d1"]["roles"] = {DEVICE_ROLE + "d1", "cloud-peer"}
    broker.sync(DesiredDevice(name="d1"))
    assert broker.clients["d1"]["roles"] == {DEVICE_ROLE + "d1"}
    assert ("publishClientSend", "#") not in broker.roles[DEVICE_ROLE + "d1"]


devices = st.lists(
    st.builds(
        DesiredDevice,
        name=st.sampled_from(["d1", "d2", "d3"]),
        is_revoked=st.booleans(),
        join=st.none() | st.builds(join, st.sampled_from("ab"), expires=st.sampled_from([500, 2000])),
    ),
    unique_by=lambda device: device.name,
    max_size=3,
)


@given(st.lists(devices, min_size=1, max_size=6))
def test_any_history_ends_as_a_new_broker_would(history: list[list[DesiredDevice]]) -> None:
    broker, fresh = PaperBroker(), PaperBroker()
    for wanted in history:
        broker.sync(*wanted)
        again = plan_security(broker.state, wanted, TOPICS, now=NOW)
        assert {command["command"] for command in again.commands} <= {"disableClient"}
    fresh.sync(*history[-1])
    assert broker.state == fresh.state


def test_what_is_wanted_of_a_device_cannot_be_read_and_it_stays() -> None:
    broker = PaperBroker()
    broker.sync(DesiredDevice(name="d1"), DesiredDevice(name="d2"))
    before = broker.state
    plan = plan_security(broker.state, [DesiredDevice(name="d1")], TOPICS, now=NOW, kept=["d2"])
    broker.run(plan.commands)
    assert (broker.state, plan.removed) == (before, ())
    broker.sync(DesiredDevice(name="d1"))
    assert "d2" not in broker.clients
