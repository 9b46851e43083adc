"""The text lane: prompts to states."""

from __future__ import annotations

from typing import Any

from actors.role import Role, answering
from gamecraft_core.base.messages import Receipt, TextOrder, TextPayload, TextStates
from gamecraft_core.base.preset import Preset


class TextActor(Role):
    """Holds the two text encoders; a prompt seen before is answered from memory."""

    def __init__(self, lane: str, preset: Preset, threads: int | None) -> None:
        super().__init__("text", lane)
        from actors import models

        self._encoder = models.text_encoder(preset, models.prepare(preset, threads))

    def warm(self) -> dict[str, Any]:
        self._encoder.encode("")
        return self.ping()

    @answering
    def run(self, order: TextOrder) -> tuple[Receipt, TextPayload]:
        def work() -> tuple[TextPayload, dict[str, Any]]:
            negative = None if order.negative_prompt is None else self._encoder.encode(order.negative_prompt)
            payload = TextPayload(self._encoder.encode(order.prompt), negative)
            return payload, {"payload_bytes": _size(payload.positive) + _size(negative)}

        return self.carry(order, work)


def _size(states: TextStates | None) -> int:
    return states.states.nbytes + states.pooled.nbytes if states else 0
