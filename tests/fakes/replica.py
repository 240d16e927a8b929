"""A replica and devices that open sessions with it over memory channels: both ends in one process, no broker."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from cloud_peer.worker import CloudWorker
from dragon_core import codec
from dragon_core.link import LinkEstimate
from dragon_core.messages import PROTOCOL_VERSION, AnyMessage, ChatMessage, Envelope, Open
from dragon_core.session.events import Closed, Emit
from dragon_core.session.session import Session
from dragon_core.session.settings import Limits
from dragon_core.types import CouplingKind
from dragon_core.wire import Wire
from dragon_runtime.answering.driver import SessionDriver
from dragon_runtime.answering.metrics import PeerMetrics
from dragon_runtime.answering.preparation import Preparation
from dragon_runtime.channel.memory import MemoryChannel
from tests.fakes.engine import WritingEngine, preparation_of


class Replica:
    """A worker with an engine of its own."""

    def __init__(self, *, max_sessions: int = 16, engine: WritingEngine | None = None) -> None:
        self.engine = engine or WritingEngine()
        self.metrics = PeerMetrics("dragon_cloud")
        self.worker = CloudWorker(
            preparation_of(self.engine), replica="r1", max_sessions=max_sessions, metrics=self.metrics
        )

    def sample(self, name: str, **labels: str) -> float:
        """A metric's value, 0 when nothing was counted."""
        return self.metrics.registry.get_sample_value(f"dragon_cloud_{name}", labels) or 0.0


class _ReplicaChannel(MemoryChannel):
    """The replica's end of a session."""

    is_open = True

    def close(self) -> None:
        super().close()
        self.is_open = False


class _DeviceChannel(MemoryChannel):
    """The device's end. An Open makes a session at the replica, or goes to the one that is there."""

    def __init__(self, replica: Replica) -> None:
        super().__init__()
        self._replica = replica
        self.theirs: _ReplicaChannel | None = None
        self.arrived = asyncio.Event()

    def send_open(self, frame: bytes) -> None:
        asyncio.get_running_loop().call_soon(self._arrive, frame)

    def _arrive(self, frame: bytes) -> None:
        if self.theirs is not None and self.theirs.is_open:
            self.theirs.take(frame)
            return
        self.theirs = _ReplicaChannel()
        self.theirs.connect(self)
        self.connect(self.theirs)
        self._replica.worker.on_open("d1", secrets.token_hex(16), frame, self.theirs)
        self.arrived.set()


@dataclass
class Device:
    """A device that asks one question. Its engine writes the same text as the replica's."""

    replica: Replica
    engine: WritingEngine = field(default_factory=WritingEngine)
    emitted: list[Emit] = field(default_factory=list)
    change: Callable[[Open], Open] = lambda request: request

    def __post_init__(self) -> None:
        self.channel = _DeviceChannel(self.replica)
        self.preparation = preparation_of(self.engine)

    async def ask(self) -> Closed:
        """The whole of a session, from its opening to its end."""
        settings = self.preparation.session_settings(limits=Limits())
        now = asyncio.get_running_loop().time()
        session, effects = Session.open(settings, self.change(open_of(self.preparation)), now=now)
        prepare, on_emit = self.preparation.prepare, self.emitted.append
        return await SessionDriver(session, self.channel, prepare=prepare, on_emit=on_emit).run(effects)

    @property
    def text(self) -> bytes:
        return b"".join(emit.text for emit in self.emitted)


class Stranger:
    """Sends a replica what it likes, and sees what comes back."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.ours, self.theirs = MemoryChannel(), _ReplicaChannel()
        self.ours.connect(self.theirs)
        self.theirs.connect(self.ours)
        self._wire = Wire(LinkEstimate())

    def knock(self, frame: bytes) -> None:
        """The first frame of a session."""
        self._replica.worker.on_open("d1", secrets.token_hex(16), frame, self.theirs)

    def frame_of(self, message: AnyMessage) -> bytes:
        return codec.encode(self._wire.seal(message, now=asyncio.get_running_loop().time()))

    async def answer(self) -> Envelope:
        """The next frame that comes back."""
        frame = await self.ours.receive()
        assert isinstance(frame, bytes)
        return codec.decode(frame)


def open_of(preparation: Preparation) -> Open:
    """A question that fits the preparation."""
    return Open(
        version=PROTOCOL_VERSION,
        fingerprint=preparation.fingerprint,
        messages=(ChatMessage("user", "Count."),),
        temperature=0.0,
        top_k=0,
        min_p=0.0,
        top_p=1.0,
        seed=1,
        max_tokens=50,
        stop=(),
        coupling=CouplingKind.SHARED_NOISE,
        window=8,
        branches=2,
        placement=None,
        num_top_logprobs=None,
        deadline_seconds=15.0,
    )
