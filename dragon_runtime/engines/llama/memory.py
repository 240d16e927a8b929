"""Sequences of a model in memory: batches of tokens in, logits out. Used from one thread only.

Every call that would make the library abort the process is refused here first.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dragon_core.errors import EngineError, ModelError, OurError
from dragon_runtime.engines.llama.model import LlamaModel, library

MAX_SEQUENCES = 256
BATCH_TOKENS = 512
_ABORTED = 2
"""What the library's decode returns when it was told to stop."""


class DecodeAborted(EngineError):  # noqa: N818 - nothing went wrong
    """A batch was dropped because `abort` asked for it; what its sequences held before it is still there."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of one sequence from `position` on; with `is_last` the logits after the last one are wanted."""

    sequence: int
    position: int
    tokens: tuple[int, ...]
    wants_logits: bool


class LlamaSequences:
    """`num_sequences` sequences of `context_length` tokens each; results do not depend on what else is in a batch."""

    def __init__(self, model: LlamaModel, *, num_sequences: int, context_length: int, num_threads: int) -> None:
        """Allocate the memory of all sequences.

        Raises:
            OurError: more sequences than the library can hold. ModelError: no memory for them.
        """
        if not 1 <= num_sequences <= MAX_SEQUENCES:
            raise OurError(f"model.num_sequences is {num_sequences}; 1 to {MAX_SEQUENCES} are possible")
        self._llama = library()
        self.context_length = context_length
        self.num_decodes = 0
        """Batches that were decoded to their end."""
        self._num_sequences, self._num_vocabulary = num_sequences, len(model.vocabulary)
        parameters = self._llama.llama_context_default_params()
        parameters.n_ctx = context_length * num_sequences
        parameters.n_batch = parameters.n_ubatch = BATCH_TOKENS
        parameters.n_seq_max = num_sequences
        parameters.n_threads = parameters.n_threads_batch = num_threads
        # Sequences with memory of their own decode the same in a batch as alone; shared memory does not.
        parameters.kv_unified = False
        parameters.no_perf = True
        self._pointer = self._llama.llama_init_from_model(model.pointer, parameters)
        if not self._pointer:
            raise ModelError(
                f"there is no memory for {num_sequences} sequences of {context_length} tokens of {model.path}: "
                "lower model.num_sequences or model.context_length"
            )
        self._memory = self._llama.llama_get_memory(self._pointer)
        self._batch = self._llama.llama_batch_init(BATCH_TOKENS, 0, 1)
        # The library asks after each of hundreds of operations of a decode, and a Python function would wait for the
        # event loop's thread each time. So libc's strlen is asked: this text is empty while the decode may go on.
        self._abort_text = ctypes.create_string_buffer(2)
        self._abort_callback = ctypes.cast(ctypes.CDLL(None).strlen, self._llama.ggml_abort_callback)
        self._llama.llama_set_abort_callback(
            self._pointer, self._abort_callback, ctypes.cast(self._abort_text, ctypes.c_void_p)
        )

    def close(self) -> None:
        """Free the memory; safe to call twice."""
        if self._pointer:
            self._llama.llama_batch_free(self._batch)
            self._llama.llama_free(self._pointer)
            self._pointer = None

    def abort(self, *, is_wanted: bool) -> None:
        """Have decodes stop at their next operation, or no longer, until told otherwise; safe from every thread."""
        self._abort_text[0] = b"x" if is_wanted else b"\0"

    def decode(self, pieces: Sequence[Piece]) -> list[NDArray[np.float32]]:
        """Run one batch; logits (V,) of the pieces that want them, in their order.

        Raises:
            DecodeAborted: `abort` was asked for. EngineError: the library could not decode.
            OurError: a batch that does not fit.
        """
        batch, at = self._batch, 0
        wanted: dict[int, int] = {}
        if sum(len(piece.tokens) for piece in pieces) > BATCH_TOKENS:
            raise OurError(f"a batch of more than {BATCH_TOKENS} tokens")
        # Only runs of consecutive sequences are computed together, so they go in their order.
        for index, piece in sorted(enumerate(pieces), key=lambda each: each[1].sequence):
            if piece.position + len(piece.tokens) > self.context_length:
                raise OurError(f"a sequence of more than {self.context_length} tokens")
            for offset, token in enumerate(piece.tokens):
                batch.token[at] = token
                batch.pos[at] = piece.position + offset
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = piece.sequence
                batch.logits[at] = 0
                at += 1
            if piece.wants_logits:
                batch.logits[at - 1] = 1
                wanted[index] = at - 1
        batch.n_tokens = at
        status = self._llama.llama_decode(self._pointer, batch)
        if status == _ABORTED:
            raise DecodeAborted(f"a batch of {at} tokens was dropped")
        if status != 0:
            raise EngineError(f"llama.cpp could not decode a batch of {at} tokens (status {status})")
        self.num_decodes += 1
        return [self._logits(wanted[index]) for index in sorted(wanted)]

    def _logits(self, index: int) -> NDArray[np.float32]:
        """A copy: the next decode writes over the library's own."""
        pointer = self._llama.llama_get_logits_ith(self._pointer, index)
        return np.ctypeslib.as_array(pointer, shape=(self._num_vocabulary,)).copy()

    @property
    def problem(self) -> str | None:
        """What is wrong while no session holds a sequence: each must be empty. Only while nothing is decoded."""
        if not self._pointer:
            return None
        for sequence in range(self._num_sequences):
            num_tokens = int(self._llama.llama_memory_seq_pos_max(self._memory, sequence)) + 1
            if num_tokens:
                return f"sequence {sequence} is free and still holds {num_tokens} tokens"
        return None

    def copy(self, source: int, target: int) -> None:
        """Make `target` what `source` is; whole sequences only, a part would abort the process."""
        self._llama.llama_memory_seq_rm(self._memory, target, -1, -1)
        self._llama.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def cut(self, sequence: int, position: int) -> None:
        """Drop every token of a sequence at or after `position`.

        Raises:
            EngineError: this kind of model cannot go back.
        """
        if not self._llama.llama_memory_seq_rm(self._memory, sequence, position, -1):
            raise EngineError("this model cannot roll back a sequence: use one with plain attention")


def load_sequences(
    path: Path, *, num_sequences: int, context_length: int, num_threads: int, num_gpu_layers: int
) -> tuple[LlamaModel, LlamaSequences]:
    """Load a model with room for its sequences. Blocks for as long as the file takes.

    Raises:
        ModelError: no such file, no GGUF, damaged, or no memory for it. OurError: too many sequences.
    """
    model = LlamaModel(path, num_gpu_layers=num_gpu_layers)
    try:
        return model, LlamaSequences(
            model, num_sequences=num_sequences, context_length=context_length, num_threads=num_threads
        )
    except BaseException:
        model.close()
        raise
