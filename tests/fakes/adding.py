"""What ``infra/adding-a-family.md`` tells a newcomer to write, written."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "infra" / "adding-a-family.md"


def write_family(folder: Path) -> Path:
    """The page's module and preset in ``folder``; the preset's path."""
    page = PAGE.read_text()
    (module,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (preset,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (folder / "signpost.py").write_text(module)
    path = folder / "signpost.yaml"
    path.write_text(preset.replace("TEXT", str(ROOT / "jobs" / "presets" / "tiny_text")))
    return path
