"""What an engine's thread works on: the sequences of each session, and which tokens go into the next batch.

Plain data and rules without threads: `thread` is what calls this.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from dragon_core.types import BranchId, Command, Drop, Feed, Fork, Rollback, Step
from dragon_runtime.engines.llama.memory import LlamaSequences, Piece
from dragon_runtime.engines.publishing import drafted_token
from dragon_runtime.interfaces import EngineRequest

PREFILL_CHUNK = 64
"""Tokens of a prompt per decode, on a grid from position 0: how a prompt is cut changes its last bits."""
MAX_FED_TOKENS = 32
"""Settled tokens of one sequence per decode: up to here, fed at once equals one by one."""
UNANSWERED = -1
"""Ticket of a feed whose result nobody wants."""
AHEAD = -2
"""Ticket of a feed that nobody asked for so far."""
MAIN = BranchId(0)


@dataclass(frozen=True, slots=True)
class _Queued:
    """A waiting command; `start` is what a feed's branch will hold before it."""

    command: Command
    start: int = 0


@dataclass(slots=True)
class _Ahead:
    """A step that is made before it is asked for: `token` follows the `start` tokens that were fed to its branch."""

    start: int
    token: int
    step: Step | None = None


def _is_ahead(command: Command) -> TypeGuard[Feed]:
    return isinstance(command, Feed) and command.ticket == AHEAD


class SessionSequences:
    """The sequences and waiting commands of one session, on the engine's thread.

    Each branch has one sequence per context, and one for the bare prompt where the weighting rule needs it.
    A branch may be one step ahead of its commands: the next one either asks for that step, or undoes it.
    """

    def __init__(self, request: EngineRequest, sequences: Sequence[int], *, prefill_chunk: int = PREFILL_CHUNK) -> None:
        self.request = request
        self._prefill_chunk = prefill_chunk
        self.prompts = request.prompts
        self.all_sequences = tuple(sequences)
        self._free = list(sequences)
        self._num_prefilled = [0] * len(self.prompts)
        self._queue: deque[_Queued] = deque()
        self._planned = {MAIN: 0}
        self._branches = {MAIN: self._take_sequences()}
        self._lengths = {MAIN: 0}
        self._ahead: dict[BranchId, _Ahead] = {}
        self._made: list[tuple[Feed, Step]] = []

    def _take_sequences(self) -> tuple[int, ...]:
        return tuple(self._free.pop() for _ in self.prompts)

    # -- prompts ------------------------------------------------------------------------------------------------

    @property
    def is_prefilling(self) -> bool:
        return any(done < len(prompt) for done, prompt in zip(self._num_prefilled, self.prompts, strict=True))

    @property
    def num_waiting(self) -> int:
        """Commands that were not run yet."""
        return len(self._queue)

    @property
    def num_branches(self) -> int:
        return len(self._branches)

    def next_chunk(self) -> Piece | None:
        """The next piece of a prompt, counted as held from now on; None when all are in place."""
        for index, prompt in enumerate(self.prompts):
            start = self._num_prefilled[index]
            if start < len(prompt):
                tokens = prompt[start : start + self._prefill_chunk]
                self._num_prefilled[index] += len(tokens)
                is_last = start + len(tokens) == len(prompt)
                return Piece(self._branches[MAIN][index], start, tokens, is_last)
        return None

    # -- commands -----------------------------------------------------------------------------------------------

    def enqueue(self, command: Command) -> None:
        """Queue a command; feeds that it takes away again are not run at all."""
        if self._takes_ahead(command):
            return
        match command:
            case Feed(_, branch, tokens):
                self._queue.append(_Queued(command, self._planned[branch]))
                self._planned[branch] += len(tokens)
                return
            case Fork(source, branch):
                self._planned[branch] = self._planned[source]
            case Rollback(branch, position):
                self._cancel_feeds(branch, position)
                self._planned[branch] = min(self._planned[branch], position)
            case Drop(branch):
                self._cancel_feeds(branch, 0)
                del self._planned[branch]
        self._queue.append(_Queued(command))

    def _takes_ahead(self, command: Command) -> bool:
        """Whether nothing is left to do: a step ahead is asked for, or left out of a copy. Else it is undone."""
        if isinstance(command, Fork):
            ahead = self._ahead.get(command.source)
            if ahead is None:
                return False
            if self._index_ahead(command.source) is None:
                self._planned[command.branch] = self._planned[command.source]
                self._queue.append(_Queued(command))
                self.enqueue(Rollback(command.branch, ahead.start))
                return True
            del self._ahead[command.source]
            self.enqueue(Rollback(command.source, ahead.start))
            return False
        ahead = self._ahead.pop(command.branch, None)
        if ahead is None:
            return False
        if isinstance(command, Feed) and command.tokens == (ahead.token,):
            index = self._index_ahead(command.branch)
            if index is not None:
                self._queue[index] = _Queued(command, ahead.start)
                return True
            if ahead.step is not None:
                self._made.append((command, ahead.step))
                return True
        self.enqueue(Rollback(command.branch, ahead.start))
        return False

    def _index_ahead(self, branch: BranchId) -> int | None:
        """Where the feed of a step ahead waits; None when it was run."""
        for index, waiting in enumerate(self._queue):
            if _is_ahead(waiting.command) and waiting.command.branch == branch:
                return index
        return None

    def run_ahead(self, branch: BranchId, step: Step) -> None:
        """Queue the feed of the token that the session drafts after `step`, unless it wants something else first."""
        if not all(_is_ahead(each.command) for each in self._queue):
            return
        position = self._planned.get(branch)
        if position is None or position + 1 >= self.request.max_tokens:  # nobody asks what follows the last token
            return
        token = drafted_token(self.request, position, step)
        if token is not None:
            self.enqueue(Feed(AHEAD, branch, (token,)))
            self._ahead[branch] = _Ahead(position, token)

    def set_ahead(self, branch: BranchId, step: Step) -> None:
        """The step ahead of a branch is made."""
        self._ahead[branch].step = step

    def take_made(self) -> list[tuple[Feed, Step]]:
        """Feeds whose steps were there when they were asked for."""
        made, self._made = self._made, []
        return made

    def _cancel_feeds(self, branch: BranchId, position: int) -> None:
        """Forget waiting feeds at or after `position`, back to the last fork, whose copy needs them."""
        kept: list[_Queued] = []
        while self._queue:
            waiting = self._queue.pop()
            command = waiting.command
            if isinstance(command, Fork) and branch in (command.source, command.branch):
                self._queue.append(waiting)
                break
            if (
                isinstance(command, Feed)
                and command.branch == branch
                and waiting.start + len(command.tokens) > position
            ):
                if waiting.start < position:
                    tokens = command.tokens[: position - waiting.start]
                    kept.append(_Queued(Feed(UNANSWERED, branch, tokens), waiting.start))
                continue
            kept.append(waiting)
        self._queue.extend(reversed(kept))

    def run_commands(self, memory: LlamaSequences) -> list[Feed]:
        """Run what waits up to a second feed of one branch; returns the feeds, at most one per branch."""
        feeds: dict[BranchId, Feed] = {}
        while self._queue:
            command = self._queue[0].command
            touched = (command.source, command.branch) if isinstance(command, Fork) else (command.branch,)
            if any(branch in feeds for branch in touched):
                break
            self._queue.popleft()
            match command:
                case Feed(_, branch, tokens) if len(tokens) > MAX_FED_TOKENS:
                    feeds[branch] = Feed(UNANSWERED, branch, tokens[:MAX_FED_TOKENS])
                    rest = Feed(command.ticket, branch, tokens[MAX_FED_TOKENS:])
                    self._queue.appendleft(_Queued(rest, self._lengths[branch] + MAX_FED_TOKENS))
                case Feed():
                    feeds[command.branch] = command
                case _:
                    self._run(command, memory)
        return list(feeds.values())

    def _run(self, command: Fork | Rollback | Drop, memory: LlamaSequences) -> None:
        match command:
            case Fork(source, branch):
                self._branches[branch] = self._take_sequences()
                self._lengths[branch] = self._lengths[source]
                for original, copy in zip(self._branches[source], self._branches[branch], strict=True):
                    memory.copy(original, copy)
            case Rollback(branch, position) if position < self._lengths[branch]:
                self._lengths[branch] = position
                for sequence, prompt in zip(self._branches[branch], self.prompts, strict=True):
                    memory.cut(sequence, len(prompt) + position)
            case Drop(branch):
                self._free.extend(self._branches.pop(branch))
                del self._lengths[branch]

    def length(self, branch: BranchId) -> int:
        """Tokens of the answer that a branch holds."""
        return self._lengths[branch]

    def is_copied(self, branch: BranchId) -> bool:
        """Whether a command that waits makes a copy of a branch."""
        return any(isinstance(each.command, Fork) and each.command.source == branch for each in self._queue)

    def pieces(self, feed: Feed) -> list[Piece]:
        """One piece per sequence of the feed's branch, counted as held from now on."""
        length = self._lengths[feed.branch]
        self._lengths[feed.branch] += len(feed.tokens)
        return [
            Piece(sequence, len(prompt) + length, feed.tokens, feed.ticket != UNANSWERED)
            for sequence, prompt in zip(self._branches[feed.branch], self.prompts, strict=True)
        ]
