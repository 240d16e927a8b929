"""What a session submitted and is not over: commands that the engine's thread has not taken, and feeds that run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dragon_core.types import BranchId, Command, Drop, Feed, Fork, Rollback


@dataclass(frozen=True, slots=True)
class RunningFeed:
    """A feed in the batch that is being decoded: its first token is at `position` of `branch`, -1 without a token.

    Without a branch nothing undoes it: it is a piece of a prompt, or a copy is to be made of what it adds.
    `ahead`: its tokens while nobody has asked for them.
    """

    branch: BranchId | None
    position: int = -1
    ahead: tuple[int, ...] = ()


class Submitted:
    """Of one session. Guarded by the engine's lock.

    `running` is what the session still needs of the last batch that was begun.
    """

    def __init__(self) -> None:
        self.inbox: list[Command] = []
        self.running: list[RunningFeed] = []

    def give_up(self, commands: Sequence[Command]) -> None:
        """Forget what of the running batch these commands undo."""
        for command in commands:
            match command:
                case Feed(_, branch, tokens):
                    self.running = [
                        replace(at, ahead=()) if at.branch == branch else at
                        for at in self.running
                        if at.branch != branch or at.ahead in ((), tokens)
                    ]
                case Fork(source, _):
                    self.running = [
                        RunningFeed(None) if at.branch == source and not at.ahead else at for at in self.running
                    ]
                case Rollback(branch, position):
                    self.running = [at for at in self.running if at.branch != branch or at.position < position]
                case Drop(branch):
                    self.running = [at for at in self.running if at.branch != branch]
