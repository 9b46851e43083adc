"""A chosen layout as a fleet file that the other jobs take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.fleet_spec import FleetSpec
from gamecraft_core.base.errors import UsageError

if TYPE_CHECKING:
    from jobs.plan import Plan
    from orchestrator.plan.layouts import Layout


def fleet_of(layout: Layout, nodes: int, *, gpus: bool, text_cores: int, name: str, description: str) -> FleetSpec:
    """The lanes of ``nodes`` nodes cut by ``layout``; without ``gpus``, reservations are tokens."""
    lanes: dict[str, dict[str, Any]] = {
        "text": {"lanes": nodes},
        "encode": {"lanes": nodes},
        "decode": {"lanes": nodes * layout.decode_lanes},
        "write": {"lanes": 4 * nodes},
    }
    groups: list[dict[str, Any]] = [
        {"groups": nodes * count, "sp_degree": degree, "split_guidance": layout.split}
        for degree, count in layout.groups
    ]
    if gpus:
        rank, decode, text, encode = layout.shares
        for group in groups:
            group |= {"num_cpus": 1, "num_gpus": rank}
        lanes["encode"] |= {"num_cpus": 1, "num_gpus": encode}
        lanes["decode"] |= {"num_cpus": 2, "num_gpus": decode}
        lanes["write"] |= {"num_cpus": 1}
        on_host = {"num_cpus": text_cores, "threads": text_cores}
        lanes["text"] |= on_host if layout.text == "host" else {"num_cpus": 1, "num_gpus": text}
    return FleetSpec.model_validate({"name": name, "description": description, "denoise": groups, **lanes})


def write_fleet(path: str, plan: Plan) -> None:
    """Write the winner, and read it back as a job would."""
    import yaml

    from jobs.config import load_fleet

    row = plan.choice.winner
    assert row.layout is not None
    spec = fleet_of(
        row.layout,
        plan.cluster.nodes,
        gpus=plan.cluster.card_name != "cpu",
        text_cores=int(plan.hardware.common.host_text_cores.value),
        name=Path(path).stem,
        description=f"Planned for {plan.preset.name} on {plan.cluster.text}, goal {plan.goal_text}: {row.name}. "
        f"Predicted, not measured: {row.chunks_per_hour * plan.cluster.nodes:.0f} chunks an hour.",
    )
    text = yaml.safe_dump(
        spec.model_dump(mode="json", exclude_defaults=True), sort_keys=False, width=120, allow_unicode=True
    )
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", field="--fleet-out", remedy="check it") from error
    assert load_fleet(str(Path(path).absolute())) == spec
