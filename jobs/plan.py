"""Plan a fleet: predict every sensible layout of a cluster for a preset, and choose one for a goal.

    python -m jobs.plan --preset gamecraft-distill --cluster 8xA100-80 --goal throughput

Nothing is run: stage costs are predicted from counted work and a table of cards, or taken from a profile (--costs).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from jobs.exits import Exit, guarded

if TYPE_CHECKING:
    from gamecraft_core.base.preset import Preset
    from gamecraft_core.costs.hardware import Hardware
    from gamecraft_core.costs.stages import StageCosts
    from jobs.cards import Cluster
    from orchestrator.plan.goals import Choice, Goal
    from orchestrator.plan.layouts import Layout, Needs
    from orchestrator.plan.predict import Row

_MOST_SESSIONS = 1024


def parser() -> argparse.ArgumentParser:
    """The command line. Building it imports nothing heavy."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.plan", description="Predict the layouts of a cluster and choose one for a goal."
    )
    made.add_argument("--preset", required=True, help="a built-in preset's name, or a preset's YAML file")
    made.add_argument("--cluster", required=True, metavar="COUNTxCARD", help="such as 8xA100-80")
    made.add_argument(
        "--goal",
        default="throughput",
        metavar="GOAL",
        help="throughput, latency, or sessions=N@SECONDS: N players, 95 of 100 chunks within SECONDS",
    )
    made.add_argument("--costs", metavar="FILE.json", help="measured stage costs (python -m jobs.bench profile)")
    made.add_argument("--price", type=_positive, metavar="DOLLARS", help="of one card an hour (default: the table's)")
    made.add_argument("--sessions", type=_count, default=64, help="sessions a node that throughput is predicted for")
    made.add_argument("--chunks", type=_count, help="chunks a session (default: 8, or the preset's)")
    made.add_argument("--rows", type=_count, default=12, help="layouts shown")
    made.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override a setting; repeatable")
    made.add_argument("--fleet-out", metavar="FILE.yaml", help="write the chosen fleet")
    made.add_argument("--plot", metavar="FILE.svg", help="draw throughput against latency")
    made.add_argument("--json", action="store_true", help="print everything as JSON instead of a table")
    return made


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= _MOST_SESSIONS:
        raise argparse.ArgumentTypeError(f"{text} is not 1 to {_MOST_SESSIONS}")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


@dataclass(frozen=True)
class Plan:
    """What was asked and what came out; ``excluded`` layouts do not fit the card's memory."""

    preset: Preset
    cluster: Cluster
    hardware: Hardware
    goal: Goal
    goal_text: str
    price: float
    sessions: int
    chunks: int
    costs: StageCosts
    reference: Row
    choice: Choice
    excluded: int


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from jobs import plan_report
    from jobs.plan_fleet import write_fleet
    from jobs.plan_plot import check_plot, write_plot

    if arguments.plot:
        check_plot(arguments.plot)
    plan = make(arguments)
    if arguments.fleet_out:
        write_fleet(arguments.fleet_out, plan)
    if arguments.plot:
        write_plot(arguments.plot, plan)
    if arguments.json:
        plan_report.print_json(plan)
    else:
        plan_report.print_table(plan, arguments.rows)
    return Exit.ALL_COMMITTED if plan.choice.met else Exit.SOME_ROWS_FAILED


def make(arguments: argparse.Namespace) -> Plan:
    """The whole plan; UsageError where something asked for does not exist or nothing fits."""
    from jobs.cards import load_hardware, parse_cluster, stage_costs
    from jobs.config import resolve
    from orchestrator.plan.goals import choose, parse_goal

    hardware = load_hardware()
    cluster, goal = parse_cluster(arguments.cluster, hardware), parse_goal(arguments.goal)
    preset = resolve(arguments.preset, sets=arguments.set).preset
    chunks = _chunks(arguments.chunks, preset)
    costs = stage_costs(preset, cluster, hardware, arguments.costs, chunks)
    price = arguments.price or cluster.card.price_per_hour.value
    known, memory = _layouts(preset, cluster)
    rows, reference = _rows(arguments.sessions, goal, cluster, costs, known, memory, price)
    return Plan(
        preset=preset,
        cluster=cluster,
        hardware=hardware,
        goal=goal,
        goal_text=arguments.goal,
        price=price,
        sessions=arguments.sessions,
        chunks=chunks,
        costs=costs,
        reference=reference,
        choice=choose(goal, rows),
        excluded=len(known) - len(rows),
    )


def _chunks(asked: int | None, preset: Preset) -> int:
    """Chunks a session: of a family that makes a whole video at once, one."""
    from gamecraft_core.base.errors import UsageError
    from gamecraft_core.base.family import family_of

    length = family_of(preset.family).length
    if length == "frames" and asked not in (None, 1):
        remedy = "leave it out; --set video.chunk_frames is the video's length"
        raise UsageError(f"sessions of {preset.name} are one chunk", field="--chunks", remedy=remedy)
    return asked or (8 if length == "actions" else preset.video.chunks)


def _layouts(preset: Preset, cluster: Cluster) -> tuple[list[Layout], Needs]:
    """All layouts and their memory; refused where none fits, with what would."""
    from gamecraft_core.base.errors import UsageError
    from gamecraft_core.footprint.predict import KEEPINGS
    from gamecraft_core.sampling.guidance import is_guided
    from jobs.cards import keeping_of, needs
    from orchestrator.plan.layouts import layouts

    made = list(layouts(cluster.cards, preset.dit.num_heads, guided=is_guided(preset.sampling.guidance)))
    if cluster.card_name == "cpu":
        made = [layout for layout in made if layout.text == "card"]  # its cards are the host
    memory = needs(preset, cluster, made, keeping_of(preset))
    room = cluster.card.memory_gib.value * 2**30
    least = min(memory.most(layout) for layout in made)
    if least <= room:
        return made, memory
    ways = []
    for keeping in KEEPINGS[1:]:
        other = needs(preset, cluster, made, keeping)
        if min(other.most(layout) for layout in made) <= room:
            ways.append(f"--set runtime.{'fp8=true' if keeping == 'fp8' else f'offload={keeping}'}")
    raise UsageError(
        f"no layout fits: at least {least / 2**30:.1f} GiB on a card of {cluster.card.memory_gib.value:g} GiB",
        field="--cluster",
        remedy=", or ".join([*ways, "use cards with more memory"]),
    )


def _players(goal: Goal, cluster: Cluster) -> int:
    """Live sessions of one node."""
    from gamecraft_core.base.errors import UsageError

    players = -(-goal.sessions // cluster.nodes)
    if players > _MOST_SESSIONS:
        most = f"plan for at most {_MOST_SESSIONS * cluster.nodes} on this cluster"
        raise UsageError(f"{players} sessions on each node are too many", field="--goal", remedy=most)
    return players


def _rows(
    sessions: int,
    goal: Goal,
    cluster: Cluster,
    costs: StageCosts,
    known: list[Layout],
    memory: Needs,
    price: float,
) -> tuple[list[Row], Row]:
    from orchestrator.plan.load import Load
    from orchestrator.plan.predict import Video, predict, reference

    video = costs.preset.video
    worth = Video(video.chunk_frames / video.fps, price)
    loss, room = costs.common.sharing_loss.value, cluster.card.memory_gib.value * 2**30
    family = costs.family.family
    start = family.starts[0]
    full = Load(sessions, costs.chunks, start=start, layout=video.layout)
    live = replace(full, sessions=_players(goal, cluster), live=True, played=family.length == "actions")
    fitting = [layout for layout in known if memory.most(layout) <= room]
    rows = [predict(layout, costs, full, live, worth, loss, memory.most(layout)) for layout in fitting]
    # The published program keeps the text encoder on the card where there is room for it.
    held = memory.ranks[cluster.cards] + memory.decode + memory.overhead
    offloaded = held + memory.text > room
    base = reference(cluster.cards, costs, live, worth, held + (0 if offloaded else memory.text), offloaded=offloaded)
    return rows, base


if __name__ == "__main__":
    sys.exit(main())
