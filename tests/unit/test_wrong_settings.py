"""Every kind of wrong option or setting says which was meant, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.synthesize import main
from tests.fakes.malformed import row

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "sampling.stepps=3"], "did you mean sampling.steps?"),
        (["--set", "sampling.steps=many"], "sampling.steps: 'many' is not possible"),
        (["--set", "sampling.guidance=nan"], "sampling.guidance"),
        (["--set", "limits.max_session=3"], "did you mean limits.max_sessions?"),
        (["--set", "store.endpoint=x"], "store.endpoint_url"),
        (["--fleet", "lap-top"], "did you mean laptop?"),
        (["--preset", "tiny-gamecrafts"], "did you mean tiny-gamecraft?"),
        (["--preset", "./wrong.yaml"], "unknown key (did you mean sampling?)"),
        (["--manifest", "nowhere.jsonl"], "manifest: cannot read"),
        (["--manifest", "manifest.xlsx"], "no known ending"),
    ],
)
def test_a_wrong_setting_says_which_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text(
        (ROOT / "jobs/presets/tiny-gamecraft.yaml").read_text().replace("sampling:", "samplin:")
    )
    Path("m.jsonl").write_bytes(row())
    argv = ["--preset", "tiny-gamecraft", "--manifest", "m.jsonl", "--out", "out", *options]
    assert main(argv) == 2
    refused = capsys.readouterr().err
    assert refused.startswith("refused: ")
    assert said in refused
    assert "Traceback" not in refused
    assert not Path("out").exists()
