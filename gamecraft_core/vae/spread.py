"""One VAE on several devices: the tiles of a call are shared out, and joined as if one device had made them all.

Invariant: where the devices are of one kind, results are the bits that one of them gives alone. Batches of tiles are
formed before they are shared out, and joined in their order on the first device. They travel through host memory, so
that no device waits for another's queue.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from queue import SimpleQueue

import torch
from torch import Tensor

from gamecraft_core.vae.model import CausalVae
from gamecraft_core.vae.tiling import Batch, Run, RunAll, Window, joined


class Spread:
    """A VAE and its copies on ``others``, each with a thread of its own that takes batches from one queue."""

    def __init__(self, vae: CausalVae, others: Sequence[torch.device]) -> None:
        self._vaes = [vae, *(_copy(vae, device) for device in others)]
        self._devices = [vae.post_quant_conv.weight.device, *others]
        self._seat = threading.local()
        seats: SimpleQueue[int] = SimpleQueue()
        for number in range(len(self._vaes)):
            seats.put(number)
        # Threads stay, each with its device: CUDA's libraries keep their plans by thread.
        self._pool = ThreadPoolExecutor(len(self._vaes), "vae", initializer=_sit, initargs=(self._seat, seats))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As ``CausalVae.encode``; the results are on the first device."""
        return self._vaes[0].encode(x.cpu(), self._among([vae.encoding() for vae in self._vaes]))

    def decode(self, z: Tensor, *, wanted: Window | None = None) -> Tensor:
        """As ``CausalVae.decode``; the result is on the first device."""
        return self._vaes[0].decode(z.cpu(), self._among([vae.decoding() for vae in self._vaes]), wanted)

    def _among(self, runs: Sequence[Run]) -> RunAll:
        """What runs batches by ``runs``, one for each device. The first error ends the call, once nothing runs."""

        def run_all(batches: Iterable[Batch]) -> Iterator[Tensor]:
            waiting = deque(self._pool.submit(self._run, runs, batch) for batch in batches)
            try:
                while waiting:
                    yield waiting.popleft().result().to(self._devices[0])
            finally:
                for future in waiting:
                    future.cancel()
                wait(waiting)

        return run_all

    @torch.inference_mode()
    def _run(self, runs: Sequence[Run], batch: Batch) -> Tensor:
        """On a thread of the pool; the copy to the host ends when the device is done, so that none takes too much."""
        number: int = self._seat.number
        return runs[number](joined(batch).to(self._devices[number])).cpu()


def _sit(seat: threading.local, seats: SimpleQueue[int]) -> None:
    seat.number = seats.get()


def _copy(vae: CausalVae, device: torch.device) -> CausalVae:
    """The same weights on ``device``, without another copy on the way."""
    with torch.device("meta"):
        copy = CausalVae(vae.config)
    copy.load_state_dict({name: weight.to(device) for name, weight in vae.state_dict().items()}, assign=True)
    return copy.eval().requires_grad_(False)
