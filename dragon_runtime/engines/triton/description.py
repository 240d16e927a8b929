"""What a language model is, on Triton's wire: the answer to a `describe`."""

import msgspec
import numpy as np

from dragon_core.errors import EngineError, OurError
from dragon_core.types import Vocabulary
from dragon_runtime.engines.triton.tensors import Tensors, tensor_in, text, text_in, texts


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is: the MODEL of a `describe`, as JSON."""

    context_length: int
    num_sequences: int
    decode_seconds: float
    chat_template: str
    bos_text: str
    eos_text: str


def description_tensors(description: Description, vocabulary: Vocabulary) -> Tensors:
    """The answer to a `describe`."""
    return {
        "MODEL": text(msgspec.json.encode(description).decode()),
        "TOKEN_BYTES": texts(vocabulary.token_bytes),
        "SPECIAL_IDS": np.array(sorted(vocabulary.special_ids), dtype=np.int32),
        "END_IDS": np.array(sorted(vocabulary.end_ids), dtype=np.int32),
    }


def description_of(tensors: Tensors) -> tuple[Description, Vocabulary]:
    """What a model says it is.

    Raises:
        EngineError: it does not fit.
    """
    try:
        description = msgspec.json.decode(text_in(tensors, "MODEL"), type=Description)
        vocabulary = Vocabulary(
            token_bytes=tuple(bytes(token) for token in tensor_in(tensors, "TOKEN_BYTES").reshape(-1).tolist()),
            special_ids=frozenset(tensor_in(tensors, "SPECIAL_IDS").reshape(-1).tolist()),
            end_ids=frozenset(tensor_in(tensors, "END_IDS").reshape(-1).tolist()),
        )
    except (msgspec.MsgspecError, OurError, TypeError) as error:
        raise EngineError(f"the model on Triton describes itself in a way that does not fit: {error}") from error
    return description, vocabulary
