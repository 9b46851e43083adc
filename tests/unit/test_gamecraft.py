"""The denoiser: what its result depends on, and what it must not depend on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from gamecraft_core.base.errors import BadInput
from gamecraft_core.base.messages import DenoiseOrder, FloatArray, TextPayload
from gamecraft_core.base.spec import PoseControl
from gamecraft_core.dit.embed import patchify
from gamecraft_core.dit.stream import Prompt
from gamecraft_core.families.gamecraft import GameCraftDenoiser
from gamecraft_core.families.history import tokens_after, with_history
from gamecraft_core.parallel.collective import Solo
from gamecraft_core.sampling.noise import draw
from gamecraft_core.timeline.camera import action_rows
from tests.fakes.tiny_model import LATENT, image_history, order, text, tiny_model, tiny_preset

Call = tuple[DenoiseOrder, TextPayload, FloatArray]

PRESET = tiny_preset()
MODEL = tiny_model(PRESET)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def denoiser(*, step_cache: bool = False) -> GameCraftDenoiser:
    return GameCraftDenoiser(PRESET, MODEL, Solo(), step_cache=step_cache)


def clip_history(latents: int) -> FloatArray:
    return np.random.default_rng(9).standard_normal((16, latents, *LATENT), dtype=np.float32)


@pytest.mark.parametrize(("frames", "latents"), [(33, 9), (17, 5)])
def test_image_start_and_continuation(frames: int, latents: int) -> None:
    first = denoiser().denoise(order(0, chunk_frames=frames), text(), image_history())
    second = denoiser().denoise(order(1, chunk_frames=frames), text(), first)
    for made in (first, second):
        assert made.shape == (16, latents, *LATENT)
        assert made.dtype == np.float32
        assert np.isfinite(made).all()
    assert abs(first - second).max() > 0.1


def test_arrays_out_of_a_store_are_read_only() -> None:
    history = image_history()
    history.flags.writeable = False
    np.testing.assert_array_equal(
        denoiser().denoise(order(), text(), history), denoiser().denoise(order(), text(), image_history())
    )


def test_a_call_repeats_to_the_bit_after_any_other_call() -> None:
    runner = denoiser()
    first = runner.denoise(order(), text(), image_history())
    runner.denoise(order(1, "left_rot"), text(8), clip_history(5))
    np.testing.assert_array_equal(runner.denoise(order(), text(), image_history()), first)


def test_the_noise_is_that_of_seed_and_chunk() -> None:
    given = draw(11, 0, "start_noise", (16, 5, *LATENT))
    by_seed = denoiser().denoise(order(), text(), image_history())
    np.testing.assert_array_equal(denoiser().denoise(order(), text(), image_history(), noise=given), by_seed)


@pytest.mark.parametrize(
    "changed",
    [order(seed=12), order(shift=3.0), order(guidance=3.0), order(guidance=1.0), order(action="s"), order(steps=4)],
)
def test_every_setting_matters(changed: DenoiseOrder) -> None:
    plain = denoiser().denoise(order(), text(), image_history())
    assert abs(denoiser().denoise(changed, text(), image_history()) - plain).max() > 1e-4


@pytest.mark.parametrize("which", ["positive", "negative", "history"])
def test_every_input_matters(which: str) -> None:
    other = text(seed=77)
    prompts = {
        "positive": TextPayload(other.positive, text().negative),
        "negative": TextPayload(text().positive, other.negative),
        "history": text(),
    }
    history = image_history(6 if which == "history" else 5)
    plain = denoiser().denoise(order(), text(), image_history())
    assert abs(denoiser().denoise(order(), prompts[which], history) - plain).max() > 1e-4


def test_a_pose_path_that_repeats_an_action_gives_its_latents() -> None:
    rows = tuple(tuple(row) for row in action_rows("d", 0.5, 17).tolist())
    by_path = denoiser().denoise(order(control=PoseControl("p", rows)), text(), image_history())
    np.testing.assert_array_equal(by_path, denoiser().denoise(order(action="d"), text(), image_history()))


def test_a_lens_that_changes_within_the_path_changes_the_unguided_camera_too() -> None:
    rows = action_rows("d", 0.0, 17)
    rows[9:, 1:3] *= 1.5
    zoom = PoseControl("zoom", tuple(tuple(row) for row in rows.tolist()))
    runner, chunk = denoiser(), order(control=zoom)
    stream = runner.stream((6, *LATENT), 1)
    unconditional, conditional = runner.branches(chunk, text(), stream)
    torch.testing.assert_close(unconditional.added, conditional.added, atol=1e-5, rtol=0)


def test_the_step_cache_is_off_unless_asked_for_and_acts_at_50_steps_only() -> None:
    exact = denoiser().denoise(order(steps=50), text(), image_history())
    cached = denoiser(step_cache=True).denoise(order(steps=50), text(), image_history())
    assert 1e-4 < abs(exact - cached).max() < 1.0
    few, few_cached = (denoiser(step_cache=flag).denoise(order(), text(), image_history()) for flag in (False, True))
    np.testing.assert_array_equal(few, few_cached)


def test_sessions_that_interleave_step_by_step_do_not_meet() -> None:
    """One denoise runs inside a step of another, on one runner, with the step cache on."""
    runner = denoiser(step_cache=True)
    orders = [(order(steps=50), text(), image_history()), (order(1, "a", steps=50), text(5), clip_history(5))]
    alone = [runner.denoise(*each) for each in orders]
    inner: list[FloatArray] = []

    def between(done: int, latents: torch.Tensor) -> None:
        if done == 12:
            inner.append(runner.denoise(*orders[1]))

    outer = runner.denoise(*orders[0], on_step=between)
    np.testing.assert_array_equal(outer, alone[0])
    np.testing.assert_array_equal(inner[0], alone[1])


def test_sessions_in_lockstep_do_not_meet() -> None:
    """Two prompts, two schedules that share timesteps, step by step in turn on one runner that kept nothing before."""
    calls: list[Call] = [
        (order(steps=4), text(), image_history()),
        (order(1, "a", steps=2), TextPayload(text(8).positive, text().negative), clip_history(5)),
        (order(2, "a", steps=4, guidance=3.0), text(8), clip_history(5)),
    ]
    alone = [denoiser().denoise(*call) for call in calls]
    for made, expected in zip(in_lockstep(denoiser(), calls), alone, strict=True):
        np.testing.assert_array_equal(made, expected)


def in_lockstep(runner: GameCraftDenoiser, calls: list[Call]) -> list[FloatArray]:
    """All calls at once, each in a thread of its own that makes one step and hands on; who is done drops out."""
    turns = [threading.Semaphore(index == 0) for index in range(len(calls))]
    running = list(range(len(calls)))
    results: dict[int, FloatArray] = {}

    def hand_on(index: int, *, leave: bool) -> None:
        following = running[(running.index(index) + 1) % len(running)]
        if leave:
            running.remove(index)
        turns[following].release()

    def run(index: int) -> None:
        def on_step(done: int, latents: torch.Tensor) -> None:
            hand_on(index, leave=False)
            assert turns[index].acquire(timeout=60)

        assert turns[index].acquire(timeout=60)
        results[index] = runner.denoise(*calls[index], on_step=on_step)
        hand_on(index, leave=True)

    threads = [threading.Thread(target=run, args=(index,)) for index in running]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    return [results[index] for index in range(len(calls))]


def test_a_table_serves_every_chunk_of_its_prompt_and_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[float, ...]] = []
    make = MODEL.conditions

    def counting(prompt: Prompt, timesteps: Sequence[float], *rest: Any) -> Any:
        made.append(tuple(timesteps))
        return make(prompt, timesteps, *rest)

    monkeypatch.setattr(MODEL, "conditions", counting)
    runner = denoiser()
    first = runner.denoise(order(), text(), image_history())
    assert len(made) == 2, "one table for each branch"
    runner.denoise(order(1, "a"), text(), first)
    assert len(made) == 2
    runner.denoise(order(2, steps=4), text(), first)
    assert [len(timesteps) for timesteps in made] == [3, 3, 4, 4]


@pytest.mark.parametrize("history", [image_history(), clip_history(5)])
def test_patch_tokens_in_parts_are_those_of_the_whole_input(history: FloatArray) -> None:
    past, latents = torch.from_numpy(history), torch.randn(16, 5, *LATENT)
    runner, frames = denoiser(), history.shape[1]
    stream = runner.stream((frames + 5, *LATENT), frames)
    with torch.inference_mode():
        tokens_at = tokens_after(MODEL, past, torch.zeros_like(latents), stream, PRESET.dit.patch_size)
        whole = MODEL.img_in(patchify(with_history(past, latents), PRESET.dit.patch_size))
        for _ in range(2):
            torch.testing.assert_close(tokens_at(latents), whole, atol=2e-6, rtol=0)


def test_compiled_blocks_compute_the_same() -> None:
    model = tiny_model(PRESET)
    model.compile_blocks(backend="aot_eager")
    compiled = GameCraftDenoiser(PRESET, model, Solo()).denoise(order(steps=1), text(), image_history())
    plain = denoiser().denoise(order(steps=1), text(), image_history())
    np.testing.assert_allclose(compiled, plain, atol=2e-5, rtol=0)


def wrong_history(runner: GameCraftDenoiser) -> FloatArray:
    return runner.denoise(order(1), text(), clip_history(9))


def wrong_noise(runner: GameCraftDenoiser) -> FloatArray:
    return runner.denoise(order(), text(), image_history(), noise=clip_history(6))


def no_negative(runner: GameCraftDenoiser) -> FloatArray:
    return runner.denoise(order(), TextPayload(text().positive), image_history())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [(wrong_history, BadInput, "history"), (wrong_noise, ValueError, "fit"), (no_negative, ValueError, "negative")],
)
def test_what_does_not_fit_is_refused(
    call: Callable[[GameCraftDenoiser], FloatArray], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        call(denoiser())
