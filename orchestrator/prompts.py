"""Prompts by content: each is encoded once, whoever asks, and handed to all who wait for it. Pure bookkeeping.

Invariant: a prompt that some active session waits for has exactly one owner, an active session with a text task under
way or in the queue. Encoded ones are kept, the latest first, up to a number.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from orchestrator import orders
from orchestrator.ports import Ref
from orchestrator.tasks import Session

#: Preset, prompt, negative prompt (None where guidance asks for none), and whether it is for a single frame.
Content = tuple[str, str, str | None, bool]


@dataclass(slots=True)
class _Prompt:
    owner: Session
    waiting: list[Session] = field(default_factory=list)
    encoded: bool = False
    ref: Ref = None


class Prompts:
    """Who has, makes and awaits which text states."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._prompts: OrderedDict[Content, _Prompt] = OrderedDict()

    def ask(self, session: Session) -> bool:
        """True when ``session`` must have its prompt encoded; otherwise it has the states, or will be given them."""
        prompt = self._prompts.get(_content(session))
        if prompt is None:
            self._prompts[_content(session)] = _Prompt(session)
            return True
        if prompt.encoded:
            self._prompts.move_to_end(_content(session))
            session.text, session.text_ready = prompt.ref, True
        else:
            prompt.waiting.append(session)
        return False

    def encoded(self, session: Session, ref: Ref) -> list[Session]:
        """``session``'s text task brought ``ref``; returns the active sessions that have their states by it."""
        prompt = self._prompts.setdefault(_content(session), _Prompt(session))
        waiting = (prompt.owner, *prompt.waiting)
        served = [each for each in waiting if each.state == "active" and not each.text_ready]
        for each in served:
            each.text, each.text_ready = ref, True
        prompt.encoded, prompt.ref, prompt.waiting = True, ref, []
        self._forget_the_oldest()
        return served

    def give_up(self, session: Session) -> Session | None:
        """``session`` ended early; returns the waiting session that owns its prompt from now on, if any does."""
        prompt = self._prompts.get(_content(session))
        if prompt is None or prompt.encoded or prompt.owner is not session:
            return None
        prompt.waiting = [each for each in prompt.waiting if each.state == "active"]
        if not prompt.waiting:
            del self._prompts[_content(session)]
            return None
        prompt.owner = prompt.waiting.pop(0)
        return prompt.owner

    def forget(self, session: Session) -> None:
        """``session``'s states may be gone with the process that made them: whoever asks next has them made again."""
        prompt = self._prompts.get(_content(session))
        if prompt is not None and prompt.encoded:
            del self._prompts[_content(session)]

    def _forget_the_oldest(self) -> None:
        surplus = len(self._prompts) - self._keep
        if surplus > 0:
            for content in [content for content, prompt in self._prompts.items() if prompt.encoded][:surplus]:
                del self._prompts[content]


def _content(session: Session) -> Content:
    order = orders.text(session.spec)
    return session.spec.preset, order.prompt, order.negative_prompt, order.still
