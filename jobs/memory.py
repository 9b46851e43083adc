"""How much memory a preset needs, per process: a table computed from the configuration, without weights or a GPU.

python -m jobs.memory --preset gamecraft
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.exits import Exit, guarded

if TYPE_CHECKING:
    from gamecraft_core.base.preset import Preset

BEGIN, END = "<!-- memory-table -->", "<!-- /memory-table -->"
DEGREES = (1, 2, 4, 8)

#: By what a rank keeps on its GPU: how the table says it.
_KEEPING = {
    "resident": "all",
    "fp8": "all, `fp8=true`",
    "modulation": "`offload=modulation`",
    "blocks": "`offload=blocks`",
}


def parser() -> argparse.ArgumentParser:
    """The command line. Building it imports nothing heavy."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.memory", description="Predict the memory that each role of a preset needs."
    )
    made.add_argument("--preset", action="append", metavar="NAME", help="a built-in preset or a YAML file (all)")
    made.add_argument("--update", metavar="FILE.md", help=f"write the table between {BEGIN} and {END} of this file")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    return guarded(lambda: _run(arguments.preset, arguments.update))


def _run(names: Sequence[str] | None, update: str | None) -> int:
    from jobs.config import load_preset, preset_names

    text = table([load_preset(name) for name in names or preset_names()])
    if update is None:
        print(text)
    else:
        path = Path(update)
        path.write_text(with_table(path.read_text(encoding="utf-8"), text), encoding="utf-8")
    return Exit.ALL_COMMITTED


def with_table(document: str, text: str) -> str:
    """``document`` with ``text`` between its markers."""
    from gamecraft_core.base.errors import UsageError

    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UsageError("the file has no place for the table", field="--update", remedy=f"add {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def table(presets: Iterable[Preset]) -> str:
    """Two tables in Markdown: denoise ranks by degree, then the other roles."""
    ranks, roles = [], []
    for preset in presets:
        ranks += _rank_rows(preset)
        roles += _role_rows(preset)
    degrees = [f"{chunk}, SP {degree}" for chunk in ("first chunk", "next") for degree in DEGREES]
    return "\n\n".join(
        (
            _markdown(["denoise rank", "on the GPU", "weights", *degrees], ranks),
            _markdown(["other roles", "", "weights", "activations", "together"], roles),
        )
    )


def _rank_rows(preset: Preset) -> list[list[str]]:
    """One row for each way to keep the weights (on a CPU there is one): what a rank holds in all."""
    from gamecraft_core.costs.family import family_work
    from gamecraft_core.footprint.predict import KEEPINGS, denoise_activations, rank_weights

    kinds = (False, True) if family_work(preset).continues else (False,)
    peaks = [denoise_activations(preset, continuing=later, world=n) for later in kinds for n in DEGREES]
    rows = []
    for keeping in KEEPINGS if preset.runtime.device != "cpu" else KEEPINGS[:1]:
        weights = rank_weights(preset, keeping)
        totals = [_size(weights + peak) for peak in peaks]
        none = ["–"] * (2 * len(DEGREES) - len(totals))
        rows.append([preset.name, _KEEPING[keeping], _size(weights), *totals, *none])
    return rows


def _role_rows(preset: Preset) -> list[list[str]]:
    from gamecraft_core.base.family import family_of
    from gamecraft_core.footprint.predict import decode_role, encode_role
    from gamecraft_core.footprint.text import text_role

    roles = {"text": text_role(preset), "decode": decode_role(preset)}
    if family_of(preset.family).starts != ("none",):
        roles["encode"] = encode_role(preset)
    return [
        [preset.name, name, _size(role.weights), _size(role.activations), _size(role.total)]
        for name, role in roles.items()
    ]


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _size(count: int) -> str:
    """GiB with one decimal, or whole MiB where that would say little."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"


if __name__ == "__main__":
    sys.exit(main())
