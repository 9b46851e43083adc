"""The decode lane: a picture that cannot be one is refused before it is encoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actors.decode import DecodeActor, is_constant
from gamecraft_core.base.errors import Poisoned
from gamecraft_core.base.messages import DecodeOrder, StartPayload
from gamecraft_core.families.paint import ChunkPainter
from gamecraft_core.timeline.sections import carried
from jobs.config import resolve
from tests.fakes.recordings import flat_frames
from tests.fakes.section_orders import decode_order

ORDER = DecodeOrder(session_id="s", index=2, start_frame=66, frames=33, height=32, width=48, fps=25)


class FlatCodec:
    """Decodes whatever it is given to one grey."""

    def decode(self, latents: Any) -> Any:
        return flat_frames([120] * 33)


def actor(*settings: str) -> Any:
    made: Any = DecodeActor("decode-0", resolve("tiny-gamecraft", sets=settings).preset, 1, {})
    codec: Any = FlatCodec()
    made._painter = ChunkPainter(made._preset, codec)
    return made


def test_a_constant_picture_is_refused_where_the_preset_says_so() -> None:
    answer, fragment = actor("video.refuse_constant=true").run(ORDER, None)
    assert isinstance(answer, Poisoned)
    assert "chunk 2" in str(answer)
    assert "refuse_constant" in answer.remedy
    assert fragment is None


def test_tiny_models_may_paint_one_colour() -> None:
    receipt, fragment = actor().run(ORDER, None)
    assert receipt.facts["frames"] == fragment.frames == 33


@pytest.mark.parametrize("name", ["tiny-framepack", "tiny-framepack-f1"])
def test_sections_become_fragments_of_what_they_settle(name: str) -> None:
    preset = resolve(name, sets=["video.height=16", "video.width=16", "video.chunk_frames=12"]).preset
    made: Any = DecodeActor("decode-0", preset, 1, {})
    made.warm()
    layout, sections, found = preset.video.layout, 3, {}
    payload = np.ones((16, carried(3), 2, 2), np.float32)
    for index in range(sections):
        order = decode_order(layout, 3, index, sections, side=16)
        receipt, fragment = made.run(order, payload, StartPayload(payload[:, :1], np.zeros((1, 32), np.float32)))
        assert receipt.facts["frames"] == fragment.frames == order.frames
        assert bool(fragment.data) == bool(fragment.frames)
        found[order.place] = fragment.frames
    assert [found[number] for number in range(sections)] == ([25, 12, 0] if layout == "inverted" else [4, 12, 21])


@pytest.mark.parametrize("spread", [0, 3, 4])
def test_one_picture_among_constant_ones_is_enough(spread: int) -> None:
    frames = flat_frames([10, 200, 90])
    frames[2, 5, 7, 1] += spread
    assert is_constant(frames) == (spread <= 3)
    assert not is_constant(np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3))


def test_real_presets_refuse_constant_pictures() -> None:
    for name in ("gamecraft", "gamecraft-distill"):
        places = [f"{key}=/nowhere" for key in ("weights.dit", "weights.vae", "text.llm", "text.clip")]
        assert resolve(name, sets=places).preset.video.refuse_constant
