"""Prompts as token ids: the model's own chat template around the conversation, with passages before the question.

Template pieces are tokenised with special tokens on, messages and passages with them off, so that no text of a user
or a document can become a control token. The template comes with the model file and runs in a sandbox only.
"""

import hashlib
import re
from collections.abc import Callable, Sequence

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dragon_core.errors import ModelError, OurError
from dragon_core.messages import ChatMessage

PASSAGES_LAYOUT = "Information:\n{passages}\n\nQuestion: {question}"
"""How the last user message looks in a context with passages; part of the fingerprint."""
PLAIN_TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"
"""For models that bring no chat template of their own."""

_MARK = "\ue000{}\ue001"
_MARKED = re.compile("\ue000([0-9]+)\ue001")

Tokenise = Callable[[str, bool], list[int]]
"""(text, whether special tokens are recognised) to token ids."""


class PromptTemplate:
    """Renders conversations of one model."""

    def __init__(self, template: str, *, bos_text: str = "", eos_text: str = "") -> None:
        """Take the model's template, or the plain one when it has none.

        Raises:
            ModelError: a template that is no template.
        """
        self._source = template or PLAIN_TEMPLATE
        self._special = {"bos_token": bos_text, "eos_token": eos_text}
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(self._source)
        except jinja2.TemplateError as error:
            raise ModelError(f"the model's chat template cannot be read: {error}") from error

    @property
    def digest(self) -> str:
        """Equal where prompts of the same passages and conversation are equal."""
        parts = (self._source, PASSAGES_LAYOUT, *self._special.values())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def prompt(self, messages: Sequence[ChatMessage], passages: Sequence[str], *, tokenise: Tokenise) -> list[int]:
        """Token ids of the conversation up to where the answer begins; `passages` stand in its last user message.

        Raises:
            OurError: the template refuses the conversation.
        """
        contents = [message.content for message in messages]
        if passages:
            at = last_user_message(messages)
            contents[at] = PASSAGES_LAYOUT.format(passages="\n".join(passages), question=contents[at])
        turns = [{"role": message.role, "content": _MARK.format(at)} for at, message in enumerate(messages)]
        try:
            rendered = self._template.render(messages=turns, add_generation_prompt=True, **self._special)
        except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise OurError(f"the model's chat template refuses this conversation: {error}") from error
        tokens: list[int] = []
        # Splitting by a pattern with one group gives template pieces and, between them, numbers of messages.
        for at, piece in enumerate(_MARKED.split(rendered)):
            if piece:
                tokens += tokenise(contents[int(piece)], False) if at % 2 else tokenise(piece, True)
        return tokens


def last_user_message(messages: Sequence[ChatMessage]) -> int:
    """Index of the message that is asked; the last one when no user speaks."""
    return max((at for at, message in enumerate(messages) if message.role == "user"), default=len(messages) - 1)


def _refuse(reason: str) -> None:
    raise jinja2.TemplateError(reason)
