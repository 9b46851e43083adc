"""The text lane: prompts to states."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from actors.role import Role, answering, called
from gamecraft_core.base.messages import Receipt, TextOrder, TextPayload, TextStates
from gamecraft_core.base.preset import Preset


class TextActor(Role):
    """Holds the two text encoders; a prompt seen before is answered from memory.

    Where the preset says so a language model writes prompts anew first, and the receipt's fact ``prompt`` is what it
    wrote. Negative prompts stay as they are.
    """

    def __init__(self, lane: str, preset: Preset, threads: int | None, store_options: Mapping[str, Any]) -> None:
        super().__init__("text", lane)
        self._preset = preset
        self._threads = threads
        self._options = dict(store_options)

    def warm(self) -> dict[str, Any]:
        from actors import models
        from gamecraft_core.weights.remote import localised

        preset = localised(self._preset, self._options, "text.llm", "text.clip", "text.rewrite")
        device = models.prepare(preset, self._threads)
        self._encoder = models.text_encoder(preset, device)
        self._rewriter = models.prompt_rewriter(preset, device)
        self._encoder.encode("")
        return self.ping()

    @answering
    def run(self, order: TextOrder) -> tuple[Receipt, TextPayload]:
        def work() -> tuple[TextPayload, dict[str, Any]]:
            encode = partial(self._encoder.encode, still=order.still)
            negative = None if order.negative_prompt is None else encode(order.negative_prompt)
            self.moved(f"{called(order)}: negative prompt")
            prompt, facts = order.prompt, dict[str, Any]()
            if self._rewriter is not None:
                prompt = self._rewriter.rewrite(prompt, lambda: self.moved(f"{called(order)}: a word of its prompt"))
                facts["prompt"] = prompt
            payload = TextPayload(encode(prompt), negative)
            return payload, {**facts, "payload_bytes": _size(payload.positive) + _size(negative)}

        return self.carry(order, work)


def _size(states: TextStates | None) -> int:
    return states.states.nbytes + states.pooled.nbytes if states else 0
