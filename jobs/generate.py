"""One session from the command line, through the same path as a whole dataset: one mp4.

python -m jobs.generate --preset micro-gamecraft --image jobs/demo/micro/red-plain.png --actions "w*3" --out walk.mp4
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gamecraft_core.base.spec import Control, PoseControl
from jobs.exits import Exit, guarded
from jobs.synthesize import add_run_options

if TYPE_CHECKING:
    from jobs.config import RunConfig
    from orchestrator.manifest.sources import Sources

#: Options that become the manifest row's column of the same name.
_COLUMNS = {
    "image": (str, "image to start from (path or URI), where the preset does"),
    "video": (str, "video to start from: its last frames are the history"),
    "actions": (str, 'controls, one a chunk, such as "w*3 left_rot:1.5 poses:path.txt", where there is a camera'),
    "frames": (int, "length of a video that is made at once: 4n+1"),
    "seconds": (float, "length of a video that is made section by section"),
    "prompt": (str, "what the world looks like"),
    "negative_prompt": (str, "what to keep away from; acts with a guidance above 1"),
    "seed": (int, "seed of every random draw"),
    "steps": (int, "solver steps a chunk"),
    "guidance": (float, "classifier-free guidance scale; 1 is off"),
    "embedded_guidance": (float, "guidance that the model is told, where it is"),
    "shift": (float, "shift of the flow-matching schedule"),
    "height": (int, "pixels"),
    "width": (int, "pixels"),
    "chunk_frames": (int, "new frames a control: 33 or 17"),
}


def parser() -> argparse.ArgumentParser:
    """The command line. Building it imports nothing heavy."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.generate",
        description="Make one video: from a prompt, an image or a video, as the preset begins.",
    )
    made.add_argument("--preset", required=True, help="a built-in preset's name, or a preset's YAML file")
    made.add_argument("--out", required=True, metavar="FILE.mp4", help="where the video goes")
    for name, (kind, text) in _COLUMNS.items():
        made.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    add_run_options(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    return guarded(lambda: _generate(arguments))


def _generate(arguments: argparse.Namespace) -> int:
    import json
    import tempfile

    from gamecraft_core.base.access import Access
    from gamecraft_core.base.store import file_uri
    from jobs.config import resolve
    from jobs.run import Request, run
    from orchestrator.manifest.rows import RowReader
    from orchestrator.manifest.sources import Sources

    config = resolve(arguments.preset, arguments.fleet, arguments.set)
    out = Path(arguments.out).absolute()
    options = config.store.model_dump()
    Access.of(options).check(str(out), "out")
    sources = Sources(file_uri("."), options)
    row: dict[str, Any] = {name: value for name in _COLUMNS if (value := getattr(arguments, name)) is not None}
    row.setdefault("prompt", "a calm world")
    spec = RowReader(config.presets, config.preset.name, sources).spec_from_fields(row)
    if spec.start.uri:
        row[spec.start.kind] = spec.start.uri
    if "actions" in row:
        row["actions"] = [_located(control, sources) for control in spec.controls]
    with tempfile.TemporaryDirectory(prefix="framelane-") as folder:
        manifest = Path(folder, "session.jsonl")
        manifest.write_text(json.dumps(row))
        status = run(
            Request(
                config=_with_scratch(config, folder),
                manifest=str(manifest),
                out=f"{folder}/out",
                address=arguments.address,
                metrics_port=arguments.metrics_port,
            )
        )
        if status == Exit.ALL_COMMITTED:
            out.parent.mkdir(parents=True, exist_ok=True)
            (video,) = Path(folder, "out", "videos").glob("*.mp4")
            out.write_bytes(video.read_bytes())
            print(f"video: {out}")
    return status


def _with_scratch(config: RunConfig, folder: str) -> RunConfig:
    """``config`` with rules that also allow ``folder``, where the one session is a dataset first."""
    access = config.store.access
    roots = (*access.roots, folder) if access.roots or "file" not in access.schemes else ()
    access = access.model_copy(update={"schemes": tuple(sorted({*access.schemes, "file"})), "roots": roots})
    return config.model_copy(update={"store": config.store.model_copy(update={"access": access})})


def _located(control: Control, sources: Sources) -> dict[str, Any]:
    """A control as a manifest writes it; a pose file is relative to where the command runs, not to that manifest."""
    if isinstance(control, PoseControl):
        return {"poses": sources.locate(control.path, "actions")}
    return control.describe()


if __name__ == "__main__":
    sys.exit(main())
