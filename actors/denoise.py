"""One rank of a denoise group: a process with the whole DiT that takes its share of the sequence.

Every rank gets the same orders in the same order. Nothing stays on a rank between chunks: history arrives with the
order, so any group can take any session.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np

from actors.role import Role, answering, called, current
from gamecraft_core.base.errors import Poisoned
from gamecraft_core.base.family import family_of
from gamecraft_core.base.messages import DenoiseOrder, FloatArray, Receipt, StartPayload, TextPayload, TextStates
from gamecraft_core.base.preset import Preset
from gamecraft_core.base.spec import ActionControl
from gamecraft_core.parallel.collective import Collective
from gamecraft_core.parallel.layout import Layout

#: How long a rank waits for its peers in one collective before it gives the group up.
_COLLECTIVE_TIMEOUT = timedelta(minutes=10)


class DenoiseRank(Role):
    """Rank ``rank`` of a group of ``layout``. ``join`` makes it part of its group and loads the weights."""

    def __init__(
        self,
        lane: str,
        preset: Preset,
        threads: int | None,
        store_options: Mapping[str, Any],
        rank: int,
        layout: Layout,
    ) -> None:
        super().__init__("denoise", lane)
        self._preset = preset
        self._threads = threads
        self._options = dict(store_options)
        self._rank: int = rank
        self._layout = layout

    def address(self) -> str:
        """Where the group meets: this rank's host and a port that is free now."""
        import ray.util

        host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"tcp://{host}:{probe.getsockname()[1]}"

    def join(self, address: str | None) -> dict[str, Any]:
        """Meet the other ranks at ``address`` (None: alone) and load the model. Returns what records need to know."""
        from actors import models
        from gamecraft_core.parallel.collective import Solo
        from gamecraft_core.weights.fingerprint import fingerprint
        from gamecraft_core.weights.remote import localised

        # The fingerprint is of every file; the other ranks read the transformer's only.
        preset = localised(self._preset, self._options, *([] if self._rank == 0 else ["weights.dit"]))
        device = models.prepare(self._preset, self._threads)
        collective: Collective = Solo() if address is None else self._meet(address, device.type)
        self._collective, self._device = collective, device
        self._denoiser = models.denoiser(preset, device, collective, self._layout)
        facts: dict[str, Any] = {"hardware": models.hardware(device)}
        if self._rank == 0:
            facts["weights_fingerprint"] = fingerprint(preset)
        return facts

    def warm(self) -> dict[str, Any]:
        """One step at the preset's size, so that the first session pays for no start-up."""
        video, config = self._preset.video, self._preset
        nothing = TextStates(
            np.zeros((1, config.dit.text_states_dim), np.float32), np.zeros(config.dit.text_states_dim_2, np.float32)
        )
        order = DenoiseOrder(
            session_id="warm-up",
            index=0,
            control=ActionControl("w", config.control.default_speed),
            seed=0,
            steps=1,
            guidance=config.sampling.guidance,
            shift=config.sampling.shift,
            height=video.height,
            width=video.width,
            chunk_frames=video.chunk_frames,
        )
        family = family_of(config.family)
        latents = np.zeros((config.vae.latent_channels, 1, video.height // 8, video.width // 8), np.float32)
        start = StartPayload(latents, np.zeros((1, config.dit.image_dim), np.float32)) if family.keeps_start else None
        history = None if start or "none" in family.starts else latents
        self._denoiser.denoise(order, TextPayload(nothing, nothing), history, start)
        return self.ping()

    def roll_call(self) -> tuple[int, ...]:
        """Every rank's generation in order; the answer itself says that the group's collectives work."""
        import torch

        mine = torch.tensor([self._generation], device=self._device)
        return tuple(int(each) for each in self._collective.all_gather(mine))

    @answering
    def run(
        self,
        order: DenoiseOrder,
        text: TextPayload,
        history: FloatArray | None,
        start: StartPayload | None = None,
    ) -> tuple[Receipt, FloatArray | None]:
        """Rank 0 returns what the next chunk continues from, every other rank None.

        ``history`` is what the chunk before handed on; of a first chunk the encoded start, unless that is ``start``.
        """
        span = current()

        def on_step(step: int, _: object) -> None:
            self._step = (order.session_id, order.index, step, order.steps)
            if span is not None:
                span.event("step", step=step, steps=order.steps)
            self.moved(f"{called(order)}: step {step} of {order.steps}")

        def work() -> tuple[FloatArray | None, dict[str, Any]]:
            latents = self._denoiser.denoise(order, text, history, start, on_step=on_step)
            if self._rank:
                return None, {}
            if not np.isfinite(latents).all():
                raise Poisoned(f"chunk {order.index}: the denoised latents are not finite", remedy="check the weights")
            sha256 = hashlib.sha256(np.ascontiguousarray(latents, "<f4").tobytes()).hexdigest()
            return latents, {"payload_bytes": latents.nbytes, "latents_sha256": sha256}

        return self.carry(order, work)

    def _meet(self, address: str, device_type: str) -> Collective:
        import torch.distributed as dist

        from gamecraft_core.parallel.collective import Distributed

        dist.init_process_group(
            "nccl" if device_type == "cuda" else "gloo",
            init_method=address,
            rank=self._rank,
            world_size=self._layout.world,
            timeout=_COLLECTIVE_TIMEOUT,
        )
        return Distributed()
