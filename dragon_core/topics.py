"""Names of MQTT topics: one tree per deployment, one subtree per device (docs/protocol-fleet.md). Pure text."""

import enum
import re
from dataclasses import dataclass

from dragon_core.errors import OurError, PeerError

ROOT = "dragon/v1"
SHARE_GROUP = "cloud"
NAME_PATTERN = "[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?"
"""What can stand in a topic, as a whole."""
_NAME = re.compile(NAME_PATTERN)
_SESSION = re.compile(r"[0-9a-f]{32}")


def require_name(name: str, *, what: str) -> str:
    """A name that can stand in a topic.

    Raises:
        OurError: it is empty, too long, or holds anything but a-z, 0-9, `-` and `.`.
    """
    if not _NAME.fullmatch(name):
        raise OurError(f"{what} is {name!r}; it must have 1 to 63 characters of a-z, 0-9, - and .")
    return name


JOIN_PREFIX = "join-"
RESERVED_DEVICES = frozenset({"operator", "cloud-peer"})
"""Identities of others at the broker."""


def require_device_name(name: str) -> str:
    """A name that a device may enrol with: its certificate carries it.

    Raises:
        OurError: it is no name, or another's identity.
    """
    require_name(name, what="device")
    if name in RESERVED_DEVICES or name.startswith(JOIN_PREFIX):
        others = ", ".join(sorted(RESERVED_DEVICES))
        raise OurError(f"a device cannot be called {name!r}: {others} and what begins with {JOIN_PREFIX} are taken")
    return name


class FleetTopic(enum.StrEnum):
    """What a device and the operator tell each other below the device's own root."""

    PRESENCE = "presence"
    DESIRED = "twin/desired"
    REPORTED = "twin/reported"
    LINK = "link"
    CERTIFICATE_REQUEST = "certificate/request"
    CERTIFICATE_RESPONSE = "certificate/response"


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one deployment."""

    namespace: str
    deployment: str

    def __post_init__(self) -> None:
        require_name(self.namespace, what="namespace")
        require_name(self.deployment, what="deployment")

    @property
    def root(self) -> str:
        return f"{ROOT}/{self.namespace}/{self.deployment}"

    def device(self, device: str) -> str:
        """Everything a device may touch is below this."""
        return f"{self.root}/devices/{require_name(device, what='device')}"

    def open(self, device: str, session: str) -> str:
        return f"{self.device(device)}/open/{session}"

    def up(self, device: str, replica: str, session: str) -> str:
        return f"{self.device(device)}/replicas/{require_name(replica, what='replica')}/{session}/up"

    def down(self, device: str, session: str) -> str:
        return f"{self.device(device)}/sessions/{session}/down"

    @property
    def all_opens(self) -> str:
        """Shared by the replicas: each open reaches one of them."""
        return f"$share/{SHARE_GROUP}/{self.root}/devices/+/open/+"

    def all_up(self, replica: str) -> str:
        return f"{self.root}/devices/+/replicas/{require_name(replica, what='replica')}/+/up"

    def all_down(self, device: str) -> str:
        return f"{self.device(device)}/sessions/+/down"

    def fleet(self, device: str, kind: FleetTopic) -> str:
        return f"{self.device(device)}/{kind.value}"

    def all_fleet(self, kind: FleetTopic) -> str:
        return f"{self.root}/devices/+/{kind.value}"

    def enrolment_request(self, device: str) -> str:
        """Outside the device's root: who enrols is not the device yet."""
        return f"{self.root}/enrolment/{require_name(device, what='device')}/request"

    def enrolment_response(self, device: str) -> str:
        return f"{self.root}/enrolment/{require_name(device, what='device')}/response"

    @property
    def all_enrolment_requests(self) -> str:
        return f"{self.root}/enrolment/+/request"

    @property
    def all_enrolment_responses(self) -> str:
        return f"{self.root}/enrolment/+/response"

    def parse_fleet(self, topic: str) -> tuple[str, FleetTopic]:
        """(device, kind) of a topic of the fleet.

        Raises:
            PeerError: it is none.
        """
        device, _, kind = topic.removeprefix(f"{self.root}/devices/").partition("/")
        if topic.startswith(f"{self.root}/devices/") and _NAME.fullmatch(device) and kind in set(FleetTopic):
            return device, FleetTopic(kind)
        raise PeerError(f"{topic[:200]!r} is no topic of the fleet", field="topic")

    def parse_enrolment(self, topic: str) -> str:
        """The device of a topic of enrolment.

        Raises:
            PeerError: it is none.
        """
        prefix = f"{self.root}/enrolment/"
        device, _, kind = topic.removeprefix(prefix).partition("/")
        if topic.startswith(prefix) and _NAME.fullmatch(device) and kind in {"request", "response"}:
            return device
        raise PeerError(f"{topic[:200]!r} is no topic of enrolment", field="topic")

    def parse(self, topic: str) -> tuple[str, str]:
        """(device, session) of a topic of a session: open, up or down.

        Raises:
            PeerError: it is none, or its names are not names.
        """
        prefix = f"{self.root}/devices/"
        parts = topic.removeprefix(prefix).split("/") if topic.startswith(prefix) else []
        match parts:
            case [device, "open", session] | [device, "sessions", session, "down"]:
                pass
            case [device, "replicas", _, session, "up"]:
                pass
            case _:
                raise PeerError(f"{topic[:200]!r} is no topic of a session", field="topic")
        if not _NAME.fullmatch(device) or not _SESSION.fullmatch(session):
            raise PeerError(f"{topic[:200]!r} does not name a device and a session", field="topic")
        return device, session
