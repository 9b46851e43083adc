"""Tables of sections, sizes and tokens. Latent frames are told apart by names: what is carried is carried for real."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from gamecraft_core.base.messages import FloatArray
from gamecraft_core.base.spec import Layout
from gamecraft_core.timeline.fades import Clip, settled
from gamecraft_core.timeline.frames import SPATIAL_RATIO, pixel_frames
from gamecraft_core.timeline.sections import (
    buckets,
    carry,
    clean_inputs,
    indices,
    nearest_bucket,
    paddings,
    section_count,
    video_tokens,
)
from gamecraft_core.timeline.spans import overlap_frames, span
from tests.parity.check import Case, Check
from tests.parity.golden import Folder

LAYOUTS: dict[str, Layout] = {"standard": "inverted", "F1": "forward"}
_WINDOW = 9
_NAMED = re.compile(r"(?P<name>zero|start|s(?P<section>\d+))(?:\[(?P<first>\d+):(?P<end>\d+)]|\*(?P<times>\d+))?")
#: Of a section's latent frames, the number of the first.
_STRIDE = 1000


def schedule_cases(folder: Folder, name: str) -> Iterator[Case]:
    for run in folder.json(name)["runs"]:
        label = f"{run['demo']}-w{run['latent_window_size']}-{run['total_second_length']:g}s"
        yield Case(f"section_schedule/{label}", partial(_run, run))


class Video:
    """A run of sections without a model: the numbers of its frames stand for what they show."""

    def __init__(self, layout: Layout, window: int, sections: int) -> None:
        self.layout, self.window, self.sections = layout, window, sections
        self.start = _frames(1, 1)
        self.payloads: list[FloatArray] = []
        for index in range(sections):
            made = _frames(_STRIDE * (index + 1), window)
            self.payloads.append(carry(layout, window, self.payload(index - 1), made, self.start))

    def payload(self, index: int) -> FloatArray | None:
        return self.payloads[index] if index >= 0 else None

    def decoded(self, index: int) -> list[int]:
        """The frames that are decoded for section ``index``: as its own, or if that settles none, as what fades."""
        number = 0 if self.layout == "inverted" else -1
        at, clips = index, settled(self.layout, self.window, index, self.sections).clips
        if not clips:
            at, clips, number = index + 1, settled(self.layout, self.window, index + 1, self.sections).clips, 1
        clip: Clip = clips[number]
        numbers = _numbers(self.payloads[at][:, slice(*clip.latents)])
        return [1, *numbers] if clip.starts else numbers


def _frames(first: int, count: int) -> FloatArray:
    return np.arange(first, first + count, dtype=np.float32).reshape(1, count, 1, 1)


def _numbers(latents: FloatArray) -> list[int]:
    return [int(value) for value in latents[0, :, 0, 0]]


def _read(named: list[str]) -> list[int]:
    """The numbers of frames described as ``s2[0:9]``, ``start`` and ``zero*16``."""
    numbers: list[int] = []
    for text in named:
        match = _NAMED.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} describes no frames")
        if match["section"] is not None:
            first = _STRIDE * (int(match["section"]) + 1)
            numbers += range(first + int(match["first"]), first + int(match["end"]))
        else:
            numbers += [{"zero": 0, "start": 1}[match["name"]]] * int(match["times"] or 1)
    return numbers


def _run(stored: dict[str, Any], check: Check) -> None:
    layout, window = LAYOUTS[stored["demo"]], stored["latent_window_size"]
    sections = section_count(stored["total_second_length"], 4 * window)
    frames = 4 * window * sections + 1
    check.equal("sections", sections, stored["sections"])
    check.equal("pixel frames", frames, stored["final_pixel_frames"])
    check.equal("latent frames", window * sections + 1, stored["final_latent_frames"])
    check.equal("seconds", round(frames / 30, 4), stored["seconds_at_30fps"])
    if isinstance(stored.get("latent_paddings"), list):
        check.equal("paddings", list(paddings(sections)), stored["latent_paddings"])
    video = Video(layout, window, sections)
    for detail in stored["detail"]:
        _section(video, detail, check)


def section_places(video: Video, index: int) -> dict[str, Any]:
    """Places in time of section ``index``, and how much is decoded and known then, under their stored names."""
    window = video.window
    at = indices(video.layout, window, index, video.sections)
    decoded = len(video.decoded(index))
    ends = [span(video.layout, 4 * window, video.sections, one) for one in range(index + 1)]
    changing = 0 if index == video.sections - 1 else overlap_frames(4 * window)
    return {
        "latent_indices": [at.window.start, at.window.stop],
        "clean_latent_indices": list(at.near),
        "clean_latent_2x_indices": [at.middle.start, at.middle.stop],
        "clean_latent_4x_indices": [at.far.start, at.far.stop],
        "decoded_latents": decoded,
        "decoded_frames": pixel_frames(decoded),
        "pixels_after": sum(end - begin for begin, end in ends) + changing,
    }


def _section(video: Video, stored: dict[str, Any], check: Check) -> None:
    index, window = stored["section"], video.window
    overlap = overlap_frames(4 * window)
    made = section_places(video, index) | {"frames_argument": overlap, "overlap_frames": overlap if index else None}
    if "latent_padding" in stored:
        padding = paddings(video.sections)[index]
        made |= {"latent_padding": padding, "blank_indices": [1, 1 + padding * window]}
    for name, value in made.items():
        check.equal(f"section {index} {name}", value, stored[name])
    shown = clean_inputs(video.layout, window, index, video.sections, video.payload(index - 1), video.start)
    parts = {"clean_1x_from": shown.near, "clean_2x_from": shown.middle, "clean_4x_from": shown.far}
    for name, latents in parts.items():
        check.equal(f"section {index} {name}", _numbers(latents), _read(stored[name]))
    check.equal(f"section {index} decoded_from", video.decoded(index), _read(stored["decoded_from"]))


def bucket_cases(folder: Folder, name: str) -> Iterator[Case]:
    stored = folder.json(name)
    yield Case("buckets_and_counts/buckets", partial(_buckets, stored))
    yield Case("buckets_and_counts/counts", partial(_counts, stored))


def _buckets(stored: dict[str, Any], check: Check) -> None:
    check.equal("buckets", [list(size) for size in buckets(640)], stored["buckets_640"])
    for one in stored["nearest"]:
        size = one["h"], one["w"]
        check.equal(f"nearest to {size}", list(nearest_bucket(*size)), one["bucket"])


def _counts(stored: dict[str, Any], check: Check) -> None:
    for one in stored["section_counts"]:
        check.equal(f"{one['seconds']} s", section_count(one["seconds"], 4 * _WINDOW), one["sections"])


def token_cases(folder: Folder, name: str) -> Iterator[Case]:
    stored = folder.json(name)
    yield Case("token_table/by_length", partial(_by_length, stored["by_length"]))
    yield Case("token_table/by_bucket", partial(_by_bucket, stored["by_bucket"]))


def _by_length(stored: list[dict[str, Any]], check: Check) -> None:
    for one in stored:
        height, width = one["height"] // SPATIAL_RATIO, one["width"] // SPATIAL_RATIO
        sections = section_count(one["seconds_asked"], 4 * _WINDOW)
        video = Video(LAYOUTS[one["demo"]], _WINDOW, max(sections, 2))  # of the one there is less
        tokens, latents = sum(video_tokens(_WINDOW, height, width)), _WINDOW * sections + 1
        whole = latents * (height // 2) * (width // 2)
        made = {
            "sections": sections,
            "pixel_frames": pixel_frames(latents),
            "video_tokens_per_section_min": tokens,
            "video_tokens_per_section_max": tokens,
            "max_latents_decoded_at_once": max(len(video.decoded(index)) for index in range(video.sections)),
            "full_attention_tokens_same_clip": whole,
            "ratio": round(whole / tokens, 2),
        }
        for name, value in made.items():
            check.equal(f"{one['demo']} {one['seconds_asked']} s {name}", value, one[name])


def _by_bucket(stored: list[dict[str, Any]], check: Check) -> None:
    for one in stored:
        size = one["height"], one["width"]
        window, height, width = one["latent"]
        check.equal(f"{size} latent", [height, width], [side // SPATIAL_RATIO for side in size])
        names = ("clean_4x", "clean_2x", "clean_1x", "noisy_window")
        tokens = video_tokens(window, height, width)
        check.equal(f"{size} tokens", list(tokens), [one[name] for name in names])
        check.equal(f"{size} video_tokens", sum(tokens), one["video_tokens"])
