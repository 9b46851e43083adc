"""Play a world from the command line, on a service that runs somewhere, and keep the video.

    python -m jobs.play --url http://127.0.0.1:8000 --image jobs/demo/inputs/harbour.png --actions "w*3 d left_rot" \
        --out walk.mp4

Every control is sent when the chunk before it can be seen, as a player does; --ahead N sends N before. Exit status:
0 the video is there, 1 failure, 2 refused.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.exits import Exit, guarded

if TYPE_CHECKING:
    from orchestrator.http.client import AsyncClient, Piece

_SETTINGS = {"preset": str, "seed": int, "steps": int, "guidance": float, "height": int, "width": int}


def parser() -> argparse.ArgumentParser:
    """The command line. Building it imports nothing heavy."""
    made = argparse.ArgumentParser(prog="python -m jobs.play", description="Walk through a world and keep the video.")
    made.add_argument("--url", default="http://127.0.0.1:8000", help="where the service is")
    made.add_argument("--token-file", metavar="FILE", help="holds the token, where one is needed")
    start = made.add_mutually_exclusive_group(required=True)
    start.add_argument("--image", help="to start from: a file, or a URI that the service can read")
    start.add_argument("--video", help="to start from instead: its last frames are the history")
    made.add_argument("--prompt", default="", help="what the world looks like")
    made.add_argument("--actions", required=True, help='controls, one a chunk, such as "w*3 d left_rot:1.5"')
    made.add_argument("--ahead", type=int, default=1, metavar="N", help="controls sent before their turn")
    made.add_argument("--out", required=True, metavar="FILE.mp4", help="where the video goes")
    for name, kind in _SETTINGS.items():
        made.add_argument(f"--{name}", type=kind, help="the preset's own otherwise")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    return guarded(lambda: asyncio.run(_play(arguments)))


async def _play(arguments: argparse.Namespace) -> int:
    from gamecraft_core.base.errors import UsageError
    from orchestrator.http.client import AsyncClient

    kind = "image" if arguments.video is None else "video"
    start = getattr(arguments, kind)
    if "://" not in start and not Path(start).is_file():
        raise UsageError(f"there is no file {start}", field=kind, remedy="check the path")
    token = Path(arguments.token_file).read_text().strip() if arguments.token_file else None
    words = _one_each(arguments.actions)
    settings = {name: getattr(arguments, name) for name in _SETTINGS}
    async with AsyncClient(arguments.url, token) as client:
        prompt = arguments.prompt or Path(start).stem.replace("_", " ")
        session = await client.create(prompt, **{kind: start}, actions=words[0], **settings)
        name = session["id"]
        print(f"session {name}")
        status = await _walk(client, name, words, max(1, arguments.ahead))
        if status != "committed":
            return Exit.FAILED
        out = Path(arguments.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(await client.video(name))
        print(f"video: {out}")
    return Exit.ALL_COMMITTED


async def _walk(client: AsyncClient, name: str, words: Sequence[str], ahead: int) -> str:
    """Send what is left of ``words`` as chunks come; how the session ended."""
    sent, shown, status = 1, 0, ""
    async for piece in client.watch(name):
        status = _told(piece) or status
        if piece.chunk is not None:
            shown = piece.chunk + 1
        more = words[sent : shown + ahead]
        if more:
            await client.control(name, " ".join(more), sent)
            sent += len(more)
        if sent == len(words) == shown and piece.chunk is not None:
            await client.finish(name)
    return status


def _told(piece: Piece) -> str:
    """Say what is new; the session's status where the piece names it."""
    event: dict[str, Any] = piece.event
    match event.get("type"):
        case "queued":
            print(f"in the queue: number {event['position']}")
        case "denoising":
            print(f"chunk {event['chunk'] + 1}: step {event['step']} of {event['steps']}")
        case "decoded":
            print(f"chunk {event['chunk'] + 1}: there")
        case "failed":
            print(f"failed: {event['reason']} ({event['remedy']})", file=sys.stderr)
            return "failed"
        case "state":
            return str(event["session"]["status"])
        case "committed" | "cancelled":
            return str(event["type"])
    return ""


def _one_each(actions: str) -> list[str]:
    """The shorthand's words, one a chunk: ``w*3`` is three. What is wrong with them the service says."""
    words: list[str] = []
    for word in actions.split():
        body, star, times = word.rpartition("*")
        if star and times.isdecimal():
            words += [body] * int(times)
        else:
            words.append(word)
    return words or [actions]


if __name__ == "__main__":
    sys.exit(main())
