"""The micro world: how fast a chunk is, and whether it obeys, against the renderer's truth on unseen scenes.

CHUNKS=n tries an action n times (default 10). Without the preset's weights on disk only the renderer is measured.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from actors import models as built
from gamecraft_core.base.messages import FloatArray
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.spec import ACTIONS, ActionControl
from gamecraft_core.families.gamecraft import GameCraftDenoiser
from gamecraft_core.micro.episodes import CHUNK_FRAMES, make_episode
from gamecraft_core.parallel.collective import Solo
from jobs.config import load_preset
from tests.bench.harness import Bench, timed
from tests.bench.micro_scores import UNSEEN, Models, Trial, psnr, try_action

THREADS = 2
RENDER_GOAL, CHUNK_GOAL_S = 1000.0, 2.5
DIRECTION_GOAL, RANK_GOAL, GAIN_GOAL_DB = 0.95, 0.9, 3.0
#: What is still a world after ten chunks: half as sharp as the first at least, and no colour's mean further off.
SHARPNESS_GOAL, COLOUR_GOAL = 0.5, 20.0
#: Mean true flows in pixels from which direction is judged, and from which pictures are compared: where they show it,
#: for along a wall of level stripes repeating the start is right to the bit, and its PSNR has no bound.
_JUDGED, _COMPARED = 1.0, 4.0
_LONG, _LONG_SESSIONS = 10, 3


def main() -> int:
    name = os.environ.get("PRESET", "micro-gamecraft")
    preset = load_preset(name)
    tries = int(os.environ.get("CHUNKS", "10"))
    sizes = preset.model_dump(mode="json", exclude={"weights", "text"})
    bench = Bench("micro", {"preset": sizes, "chunks_an_action": tries, "threads": THREADS})
    bench.figure("renderer_frames_a_second", rendered(), "frames/s", goal=RENDER_GOAL, better="higher")
    missing = [place for place in (preset.weights.dit, preset.weights.vae) if place and not Path(place).exists()]
    if missing:
        bench.skip("chunk", f"there are no weights at {', '.join(missing)}")
        return bench.finish()
    models = load(preset)
    speed(bench, models)
    obedience(bench, [try_action(models, action, seed) for action in ACTIONS for seed in range(tries)])
    coding(bench, models)
    memory(bench, models)
    return bench.finish()


def load(preset: Preset) -> Models:
    device = built.prepare(preset, threads=THREADS)
    denoiser = built.denoiser(preset, device, Solo())
    assert isinstance(denoiser, GameCraftDenoiser)
    return Models(preset, built.text_encoder(preset, device), denoiser, built.vae_codec(preset, device))


def rendered() -> list[float]:
    """Frames a second of two processes of one thread, over all kinds of worlds."""
    with ProcessPoolExecutor(THREADS, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        list(pool.map(_render, range(2 * THREADS)))
        samples = []
        for _ in range(3):
            began = time.perf_counter()
            frames = sum(pool.map(_render, range(24)))
            samples.append(frames / (time.perf_counter() - began))
    return samples


def _one_thread() -> None:
    torch.set_num_threads(1)


def _render(seed: int) -> int:
    preset = load_preset("micro-gamecraft")
    return len(make_episode(UNSEEN + seed, 1, (96, 160), preset.control).pictures.frames)


def speed(bench: Bench, models: Models) -> None:
    """A continued chunk, which has the longest history, with its decode."""
    video = models.preset.video
    shape = (16, 9, video.height // 8, video.width // 8)
    history: FloatArray = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

    def chunk() -> None:
        models.codec.decode(models.chunk(1, ActionControl("w", 1.0), "a red corridor", history))

    bench.figure("chunk_with_decode", timed(chunk, 5), "s", goal=CHUNK_GOAL_S)


def obedience(bench: Bench, trials: list[Trial]) -> None:
    bench.figure("readable_trials", float(np.mean([trial.readable for trial in trials])), "part", better="higher")
    for action in ACTIONS:
        mine = [trial for trial in trials if trial.action == action and trial.readable]
        moved = [trial for trial in mine if trial.flow >= _JUDGED]
        right = sum(trial.seen > 0 for trial in moved) / max(1, len(moved))
        bench.figure(f"{action}_direction_right", right, "part", goal=DIRECTION_GOAL, better="higher")
        rank = rank_correlation([trial.asked for trial in mine], [trial.seen for trial in mine])
        bench.figure(f"{action}_speed_rank", rank, "", goal=RANK_GOAL, better="higher")
    compared = [trial for trial in trials if trial.readable and trial.chunk_flow >= _COMPARED]
    if compared:
        gain = float(np.mean([trial.psnr - trial.still_psnr for trial in compared]))
        bench.figure("psnr_over_repeating_the_start", gain, "dB", goal=GAIN_GOAL_DB, better="higher")
        bench.figure("psnr", float(np.mean([trial.psnr for trial in compared])), "dB", better="higher")
    else:
        bench.skip("psnr_over_repeating_the_start", "no chunk moved far enough")


def coding(bench: Bench, models: Models) -> None:
    """What the VAE alone keeps of unseen clips."""
    values = []
    for seed in range(12):
        size = (models.preset.video.height, models.preset.video.width)
        clip = make_episode(UNSEEN + 500 + seed, 1, size, models.preset.control).chunk(0)
        values.append(psnr(clip, torch.from_numpy(models.codec.decode(models.codec.encode_clip(clip.numpy(), 0)))))
    bench.figure("vae_psnr", values, "dB", goal=28.0, better="higher")


def memory(bench: Bench, models: Models) -> None:
    """After ten chunks: sharpness and colour against the first; and whether a turn there and back shows the same."""
    sharp, colour, back = [], [], []
    for seed in range(_LONG_SESSIONS):
        keys = ("w", "left_rot", "d", "right_rot", "s", "right_rot", "a", "left_rot", "w", "s")[:_LONG]
        made = session(models, [ActionControl(key, models.preset.control.default_for(key)) for key in keys], seed)
        first, last = made[0], made[-1]
        sharp.append(sharpness(last) / sharpness(first))
        colour.append(float(np.abs(last.mean((0, 1, 2)) - first.mean((0, 1, 2))).max()))
        turn = models.preset.control.rotation_speed_max
        there = [ActionControl("left_rot", turn)] * 2 + [ActionControl("right_rot", turn)] * 2
        made = session(models, there, 100 + seed)
        start, end, away = (torch.from_numpy(made[index][frame]) for index, frame in ((0, 0), (3, -1), (1, -1)))
        back.append(float(psnr(start, end) > psnr(start, away)))
    bench.figure("sharpness_after_ten_chunks", sharp, "of the first", goal=SHARPNESS_GOAL, better="higher")
    bench.figure("colour_shift_after_ten_chunks", colour, "of 255", goal=COLOUR_GOAL)
    bench.figure("turn_and_back_is_nearer_than_away", float(np.mean(back)), "part", better="higher")


def session(models: Models, controls: list[ActionControl], seed: int) -> list[np.ndarray]:
    """Frames of every chunk of a session from the first picture of an unseen scene."""
    size = (models.preset.video.height, models.preset.video.width)
    start = make_episode(UNSEEN + 900 + seed, 1, size, models.preset.control, controls=controls[:1])
    history, frames = models.codec.encode_image(start.chunk(0)[0].numpy(), seed), []
    for index, control in enumerate(controls):
        history = models.chunk(index, control, start.prompt, history, seed)
        frames.append(models.codec.decode(history))
    assert len(frames[0]) == CHUNK_FRAMES
    return frames


def sharpness(frames: np.ndarray) -> float:
    """Mean step from a pixel to its neighbour."""
    return float(np.abs(np.diff(frames.astype(np.float32), axis=2)).mean()) + 1e-3


def rank_correlation(one: list[float], other: list[float]) -> float:
    """Spearman's, with equal values sharing their mean rank; 0 where one of them does not vary."""
    first, second = (_ranks(np.array(values)) for values in (one, other))
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.array([(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values])


if __name__ == "__main__":
    sys.exit(main())
