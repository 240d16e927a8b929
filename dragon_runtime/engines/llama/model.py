"""A GGUF model in memory: weights, vocabulary and tokeniser, through llama.cpp's C interface. No decoding here."""

import ctypes
import functools
import logging
import os
from pathlib import Path
from typing import Any

from dragon_core.errors import ModelError, OurError
from dragon_core.types import Vocabulary

logger = logging.getLogger(__name__)

GGUF_MAGIC = b"GGUF"
MAX_PIECE_BYTES = 512
KEPT_BYTES = 32 << 20
"""The most that glibc takes as the size from which on memory is mapped."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_SAID_OF_AN_ABORT = ("graph_compute:", "process_ubatch:", "llama_decode: failed to decode, ret = 2")
"""A dropped batch is told as an error, and so is one that failed, but with another number."""
_LOG_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.DEBUG, 4: logging.WARNING}


@functools.cache
def library() -> Any:
    """The llama.cpp library, initialised once per process.

    Raises:
        ModelError: it is not installed here.
    """
    # Threads that spin while they wait take a core from everything else on this machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelError(
            f"llama.cpp cannot be loaded: {error}; run `make setup`, or install llama-cpp-python"
        ) from error
    llama_cpp.llama_log_set(_log_callback(llama_cpp), None)
    llama_cpp.llama_backend_init()
    _keep_freed_memory()
    return llama_cpp


def _keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one: else every array of the vocabulary's length is paid for with
    page faults, which take as long as its softmax."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


@functools.cache
def _log_callback(llama_cpp: Any) -> Any:
    """Kept for ever: the library calls it whenever it likes."""

    def log(level: int, text: bytes, user: object) -> None:
        del user
        said = text.decode("utf-8", "replace").rstrip()
        is_abort = said.startswith(_SAID_OF_AN_ABORT)
        logger.log(logging.DEBUG if is_abort else _LOG_LEVELS.get(level, logging.DEBUG), "%s", said)

    return llama_cpp.llama_log_callback(log)


class LlamaModel:
    """Weights and vocabulary. Reading the vocabulary is safe from every thread."""

    def __init__(self, path: Path, *, num_gpu_layers: int = 0) -> None:
        """Load the file at `path`, so many of its layers on a GPU.

        Raises:
            ModelError: it is missing, no GGUF file, truncated or of an unknown kind.
        """
        require_gguf(path)
        self.path = path
        self._llama = library()
        parameters = self._llama.llama_model_default_params()
        parameters.n_gpu_layers = num_gpu_layers
        # Repacked weights make some models decode differently in a batch than alone.
        parameters.use_extra_bufts = False
        self.pointer = self._llama.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.pointer:
            raise ModelError(f"{path} cannot be loaded as a model: it may be truncated or damaged; get it again")
        self._vocabulary_pointer = self._llama.llama_model_get_vocab(self.pointer)
        self.vocabulary = self._read_vocabulary()
        self.training_context_length = int(self._llama.llama_model_n_ctx_train(self.pointer))

    def close(self) -> None:
        """Free the weights; no context of this model may be alive."""
        if self.pointer:
            self._llama.llama_model_free(self.pointer)
            self.pointer = None

    @property
    def chat_template(self) -> str:
        """The template in the file; empty without one."""
        text = self._llama.llama_model_chat_template(self.pointer, None)
        return "" if text is None else text.decode("utf-8", "replace")

    @property
    def bos_text(self) -> str:
        return self._text_of(self._llama.llama_vocab_bos(self._vocabulary_pointer))

    @property
    def eos_text(self) -> str:
        return self._text_of(self._llama.llama_vocab_eos(self._vocabulary_pointer))

    def _text_of(self, token: int) -> str:
        if token < 0:
            return ""
        return str(self._llama.llama_vocab_get_text(self._vocabulary_pointer, token).decode("utf-8", "replace"))

    def tokenise(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`, none added."""
        raw = text.encode()
        size = len(raw) + 8
        ids = (self._llama.llama_token * size)()
        num_tokens = self._llama.llama_tokenize(self._vocabulary_pointer, raw, len(raw), ids, size, False, special)
        if num_tokens < 0:
            raise OurError(f"a text of {len(raw)} bytes cannot be tokenised")
        return list(ids[:num_tokens])

    def _read_vocabulary(self) -> Vocabulary:
        llama, pointer = self._llama, self._vocabulary_pointer
        num_tokens = int(llama.llama_vocab_n_tokens(pointer))
        return Vocabulary(
            token_bytes=tuple(self._piece(token) for token in range(num_tokens)),
            special_ids=frozenset(t for t in range(num_tokens) if llama.llama_vocab_is_control(pointer, t)),
            end_ids=frozenset(t for t in range(num_tokens) if llama.llama_vocab_is_eog(pointer, t)),
        )

    def _piece(self, token: int) -> bytes:
        """What a token prints; special tokens print nothing."""
        buffer = ctypes.create_string_buffer(MAX_PIECE_BYTES)
        size = self._llama.llama_token_to_piece(self._vocabulary_pointer, token, buffer, MAX_PIECE_BYTES, 0, False)
        if size < 0:
            raise ModelError(f"{self.path}: token {token} prints more than {MAX_PIECE_BYTES} bytes")
        return buffer.raw[:size]


def require_gguf(path: Path) -> None:
    """Refuse what is no model file before the library sees it.

    Raises:
        ModelError: it cannot be read, or is something else.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}; set model.path or model.url") from error
    if magic != GGUF_MAGIC:
        raise ModelError(f"{path} is no GGUF file (it begins with {magic!r}); set model.path to one")
