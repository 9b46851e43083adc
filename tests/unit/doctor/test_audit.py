"""The audit against a plain restatement of its rules, on worlds of which no store has to exist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamecraft_core.base.store import Entry
from gamecraft_core.dataset import layout
from gamecraft_core.dataset.audit import Audit, Finding, Kind, Record, RunFacts, Unsettled

ROWS, PER_SHARD = 6, 2
SESSIONS = {f"s{row}": row for row in range(1, ROWS + 1)}

#: What ``_commits`` says of a session, and what else is there of it.
STATES = st.fixed_dictionaries(
    {
        "record": st.sampled_from(["row", "row", "tombstone", "none", "junk"]),
        "published": st.booleans(),
        "failure": st.booleans(),
        "staged": st.booleans(),
        "video": st.booleans(),
        "latents": st.booleans(),
    }
)


def record(name: str) -> Record:
    row = SESSIONS[name]
    return Record(name, row, layout.video_key(f"{row:064x}"), f"{row:064x}", 100 + row, (latents(name),))


def latents(name: str) -> str:
    return layout.latents_key(name, 0, "ab" * 32)


@dataclass
class World:
    """An output as values, and the audit's view of it."""

    status: str
    states: dict[str, dict[str, object]]
    read: list[str] = field(default_factory=list)

    def shard(self, index: int) -> str:
        return layout.shard_key(index, ROWS // PER_SHARD)

    def members(self, index: int) -> list[str]:
        return [name for name, row in SESSIONS.items() if (row - 1) // PER_SHARD == index]

    def shards(self) -> dict[str, list[str]]:
        """A shard is there when one of its sessions is published."""
        shards = {}
        for index in range(ROWS // PER_SHARD):
            rows = [name for name in self.members(index) if self.states[name]["published"]]
            if rows:
                shards[self.shard(index)] = rows
        return shards

    def entries(self) -> Iterator[Entry]:
        keys = dict.fromkeys(self.shards(), 7)
        for name, state in self.states.items():
            there = {
                layout.commit_key(name): state["record"] != "none",
                layout.failure_key(name): state["failure"],
                layout.chunk_key(name, 0, 1, "cd" * 32): state["staged"],
                latents(name): state["latents"],
            }
            keys |= {key: 7 for key, exists in there.items() if exists}
            if state["video"]:
                keys[record(name).video_path] = record(name).video_bytes
        return (Entry(key, size, 1.0) for key, size in sorted(keys.items()))

    def published(self, shard: str) -> Iterator[Record]:
        self.read.append(shard)
        return map(record, self.shards()[shard])

    def settled(self, session_ids: Iterable[str]) -> Iterator[tuple[str, Record | Unsettled]]:
        other = {"tombstone": Unsettled.FAILED, "none": Unsettled.ABSENT, "junk": Unsettled.UNREADABLE}
        for name in session_ids:
            self.read.append(name)
            yield name, other.get(str(self.states[name]["record"])) or record(name)

    def run(self) -> RunFacts:
        finished = self.status == "finished"
        return RunFacts("r", self.status, PER_SHARD, ROWS if finished else 0)

    def look(self) -> list[Finding]:
        return list(Audit(self.run(), self).findings(self.entries(), ()))


def rules(world: World) -> Counter[tuple[Kind, str, str]]:
    """(kind, key, session) of everything that is wrong, said session by session."""
    finished = world.status == "finished"
    wrong: list[tuple[Kind, str, str]] = []
    loose = [name for name, state in world.states.items() if not state["published"]]
    blind = any(world.states[name]["record"] == "junk" for name in loose)
    for name, state in world.states.items():
        said, shard = state["record"], world.shard((SESSIONS[name] - 1) // PER_SHARD)
        commit, failure = layout.commit_key(name), layout.failure_key(name)
        committed = bool(state["published"]) or said == "row"
        settled = said != "none"
        if state["published"] and not settled:
            wrong.append((Kind.UNRECORDED, shard, name))
        if said == "junk" and not state["published"]:
            wrong.append((Kind.UNREADABLE, commit, name))
        if said == "tombstone" and not state["published"] and not state["failure"]:
            wrong.append((Kind.UNINDEXED, commit, name))
        if said == "row" and not state["published"] and shard in world.shards():
            wrong.append((Kind.LEFT_OUT, commit, name))
        if state["failure"] and (committed or (finished and not settled)):
            wrong.append((Kind.FAILURE, failure, name))
        if state["staged"] and (finished or settled):
            wrong.append((Kind.STAGED, layout.chunk_key(name, 0, 1, "cd" * 32), name))
        for key, there, kind in (
            (record(name).video_path, state["video"], Kind.VIDEO),
            (latents(name), state["latents"], Kind.LATENTS),
        ):
            if committed and not there:
                wrong.append((Kind.MISSING, key, name))
            if there and not committed and not blind and (kind is Kind.VIDEO or finished or settled):
                wrong.append((kind, key, name if kind is Kind.LATENTS else ""))
    for index in range(ROWS // PER_SHARD) if finished and not blind else ():
        if world.shard(index) not in world.shards():
            wrong.append((Kind.SHARD, world.shard(index), ""))
    return Counter(wrong)


@given(
    status=st.sampled_from(["running", "finished"]),
    states=st.fixed_dictionaries(dict.fromkeys(SESSIONS, STATES)),
)
def test_the_audit_finds_what_the_rules_say(status: str, states: dict[str, dict[str, object]]) -> None:
    world = World(status, states)
    found = world.look()
    assert Counter((each.kind, each.key, each.session) for each in found) == rules(world)
    for each in found:
        if each.kind is Kind.SHARD:
            index = int(each.key.split("-")[1])
            rows = [name for name in world.members(index) if states[name]["record"] == "row"]
            assert each.sessions == tuple(rows), "in manifest order"


def whole() -> World:
    state: dict[str, object] = {
        "record": "row",
        "published": True,
        "failure": False,
        "staged": False,
        "video": True,
        "latents": True,
    }
    return World("finished", {name: dict(state) for name in SESSIONS})


def test_a_sound_world_has_no_findings_and_is_read_once() -> None:
    world = whole()
    assert world.look() == []
    assert world.read == [world.shard(index) for index in range(3)]


def test_sizes_are_compared() -> None:
    world = whole()
    entries = [entry._replace(size=3) if entry.key == record("s2").video_path else entry for entry in world.entries()]
    (finding,) = Audit(world.run(), world).findings(entries, ())
    assert (finding.kind, finding.session, finding.detail) == (Kind.WRONG, "s2", "3 bytes, not 102")


@pytest.mark.parametrize("committed", [5, 6, 7])
def test_the_count_in_run_json_is_compared(committed: int) -> None:
    world = whole()
    run = RunFacts("r", "finished", PER_SHARD, ROWS, committed)
    found = [(each.kind, each.detail) for each in Audit(run, world).findings(world.entries(), ())]
    assert found == ([(Kind.LOST, "6 of 7 are left")] if committed == 7 else [])


def test_files_beside_the_folders_do_not_change_the_order_of_reading() -> None:
    world = whole()
    beside = [Entry(f"{folder}{end}", 1, 1.0) for folder in ("data", "latents", "videos") for end in ("-x", ".x")]
    found = list(Audit(world.run(), world).findings(sorted([*world.entries(), *beside]), ()))
    assert Counter(each.kind for each in found) == {Kind.UNKNOWN: 6}
