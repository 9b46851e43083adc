"""The training command: what it refuses, in words, and that it goes on from the published weights alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jobs.config import load_preset
from jobs.exits import Exit
from jobs.micro_world.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "s3://bucket/micro"], "out: s3://bucket/micro is not a local folder"),
        (["--out", "/dev/null/micro"], "out: cannot make /dev/null/micro"),
        (["--preset", "no-such"], "preset"),
        (
            ["--preset", "tiny-gamecraft", "--from-weights", "--stage", "dit", "--dit-steps", "1"],
            "from_weights: tiny-gamecraft has no",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = [] if "--out" in arguments else ["--out", str(tmp_path)]
    assert main([*arguments, *here]) == Exit.REFUSED
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("arguments", [["--vae-steps", "0"], ["--threads", "many"], ["--stage", "text"], []])
def test_wrong_arguments_are_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_training_goes_on_from_the_published_weights_alone(tmp_path: Path) -> None:
    published = load_preset("micro-gamecraft").weights.dit
    assert published is not None
    few = ["--stage", "dit", "--dit-steps", "1", "--pool", "2", "--processes", "0", "--from-weights"]
    assert main(["--out", str(tmp_path), *few]) == Exit.ALL_COMMITTED
    before, after = load_file(published), load_file(tmp_path / "dit.safetensors")
    assert before.keys() == after.keys()
    change = torch.stack([(after[name].float() - before[name].float()).norm() for name in before])
    size = torch.stack([before[name].float().norm() for name in before])
    assert 0 < float(change.norm()) < 0.02 * float(size.norm()), "one small step away from what is published"
