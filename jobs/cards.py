"""The planner's inputs: the table of cards, a cluster's name, a profile of measured costs, memory needs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gamecraft_core.base.errors import UsageError
from gamecraft_core.costs.hardware import Card, Hardware
from jobs.config import PRESETS
from jobs.overrides import nearest

if TYPE_CHECKING:
    from gamecraft_core.base.preset import Preset
    from gamecraft_core.costs.stages import StageCosts
    from gamecraft_core.footprint.predict import Keeping
    from orchestrator.plan.layouts import Layout, Needs

_TABLE = PRESETS / "hardware" / "cards.yaml"
_CLUSTER = re.compile(r"(\d{1,5})x(.+)")


@dataclass(frozen=True, slots=True)
class Cluster:
    """``nodes`` alike of ``cards`` each."""

    text: str
    card_name: str
    card: Card
    nodes: int
    cards: int


def load_hardware() -> Hardware:
    import yaml

    return Hardware.model_validate(yaml.safe_load(_TABLE.read_text(encoding="utf-8")))


def parse_cluster(text: str, hardware: Hardware) -> Cluster:
    """``8xA100-80``: how many cards of which kind; more than a node holds come as whole nodes."""
    match = _CLUSTER.fullmatch(text)
    if match is None or int(match[1]) < 1:
        raise UsageError(f"{text!r} is no cluster", field="--cluster", remedy="write COUNTxCARD, such as 8xA100-80")
    count, name = int(match[1]), match[2]
    if name not in hardware.cards:
        known = {key.lower(): key for key in hardware.cards}
        meant = nearest(name.lower(), list(known))
        meant = re.sub(r"\b[\w-]+\b", lambda word: known.get(word[0], word[0]), meant)
        raise UsageError(f"unknown card {name!r}", field="--cluster", remedy=meant)
    card = hardware.cards[name]
    nodes, rest = divmod(count, card.per_node)
    if nodes and rest:
        raise UsageError(
            f"{count} {name} are {nodes} nodes of {card.per_node} and {rest} cards over",
            field="--cluster",
            remedy=f"write {nodes * card.per_node}x{name} or {(nodes + 1) * card.per_node}x{name}",
        )
    return Cluster(text, name, card, max(1, nodes), card.per_node if nodes else count)


def stage_costs(preset: Preset, cluster: Cluster, hardware: Hardware, profile: str | None, chunks: int) -> StageCosts:
    """Predicted costs of sessions of ``chunks``, or those of a profile made on the cluster's kind of card."""
    from gamecraft_core.costs.stages import StageCosts
    from gamecraft_core.footprint.predict import rank_weights

    measured, where = read_profile(profile, preset, cluster) if profile else ({}, "")
    blocks = 0
    if preset.runtime.offload == "blocks":
        blocks = rank_weights(preset, "modulation") - rank_weights(preset, "blocks")
    cpu = hardware.cards["cpu"]
    return StageCosts(preset, cluster.card_name, cluster.card, cpu, hardware.common, blocks, measured, where, chunks)


def read_profile(path: str, preset: Preset, cluster: Cluster) -> tuple[dict[str, float], str]:
    """Seconds by stage and the hardware's name, from a file that ``jobs.bench profile`` wrote."""
    from gamecraft_core.costs.stages import PROFILED, profile_of

    try:
        values: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        seconds = {stage: float(each["median"]) for stage, each in values["seconds"].items()}
        hardware, shape = str(values["hardware"]), values["shape"]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", field="--costs", remedy="check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "make one with python -m jobs.bench profile"
        raise UsageError(f"{path} is no profile", field="--costs", remedy=remedy) from error
    if unknown := sorted(seconds.keys() - set(PROFILED)) or [key for key, each in seconds.items() if not each > 0]:
        raise UsageError(f"{path}: stage {unknown[0]} is not usable", field="--costs", remedy="measure again")
    if not any(name in hardware for name in cluster.card.device_names):
        remedy = f"measure on {cluster.card.device_names[0]}, or plan for the cards it was measured on"
        raise UsageError(f"{path} was measured on {hardware}, not {cluster.card_name}", field="--costs", remedy=remedy)
    wanted = profile_of(preset)
    for group, own in wanted.items():
        if shape.get(group) != own:
            raise UsageError(f"{path} was measured with another {group}", field="--costs", remedy="measure this preset")
    return seconds, hardware


def needs(preset: Preset, cluster: Cluster, layouts: list[Layout], keeping: Keeping) -> Needs:
    """Memory of every role's process on a card, predicted by ``footprint``."""
    from gamecraft_core.footprint.predict import decode_role, denoise_activations, encode_role, rank_weights
    from gamecraft_core.footprint.text import text_role
    from orchestrator.plan.layouts import Needs

    weights = rank_weights(preset, keeping)
    whole = {degree // (1 + layout.split) for layout in layouts for degree, _ in layout.groups}
    degrees = sorted(whole | {cluster.cards})
    ranks = {
        degree: weights + max(denoise_activations(preset, continuing=each, world=degree) for each in (False, True))
        for degree in degrees
    }
    return Needs(
        ranks=ranks,
        text=text_role(preset).total,
        encode=encode_role(preset).total,
        decode=decode_role(preset).total,
        overhead=int(cluster.card.process_gib.value * 2**30),
    )


def keeping_of(preset: Preset) -> Keeping:
    if preset.runtime.fp8:
        return "fp8"
    return "resident" if preset.runtime.offload == "none" else preset.runtime.offload
