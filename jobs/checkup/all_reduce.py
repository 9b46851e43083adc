"""One rank of a trial collective, as a program (RANK WORLD ADDRESS BACKEND): it ends with 0 where the sum is right."""

from __future__ import annotations

import sys
from datetime import timedelta

_TIMEOUT = timedelta(seconds=30)


def main(rank: int, world: int, address: str, backend: str) -> int:
    import torch
    import torch.distributed as dist

    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=world, timeout=_TIMEOUT)
    numbers = torch.full((1 << 20,), float(rank + 1), device=device)
    dist.all_reduce(numbers)
    right = bool((numbers == world * (world + 1) / 2).all())
    dist.destroy_process_group()
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]))
