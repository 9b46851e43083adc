"""Named points at which a process can be told to die: how crash tests reach between two steps of a protocol.

Nothing happens unless the environment names a folder (``FRAMELANE_CRASH_POINTS``). A file there, named after a point,
arms it: the first process that reaches the point takes the file away and kills itself, as ``kill -9`` would.
"""

from __future__ import annotations

import os
import signal

FOLDER_VARIABLE = "FRAMELANE_CRASH_POINTS"

#: Every point, in the order of a session's life. Before or after is said from the store's view.
POINTS = (
    "claim.made",
    "stage.begun",
    "stage.done",
    "restore.begun",
    "commit.begun",
    "commit.video_put",
    "commit.record_put",
    "commit.staged_removed",
    "fail.index_put",
    "fail.tombstone_put",
    "publish.begun",
    "publish.done",
    "finish.begun",
    "finish.swept",
)


def reached(point: str) -> None:
    """Die here if ``point`` is armed; otherwise return at once."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return
    armed = os.path.join(folder, point)
    try:
        os.rename(armed, f"{armed}.struck-{os.getpid()}")
    except OSError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
