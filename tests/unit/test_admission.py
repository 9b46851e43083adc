"""The queue before the board: who comes in, in which order, and who is told what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gamecraft_core.base.spec import SessionSpec
from orchestrator.admission import Admissions, Refusal, Wait
from orchestrator.census import Census
from orchestrator.limits import Limits, TenantLimits
from tests.fakes.sessions import session


def admissions(**limits: object) -> tuple[Admissions, Census]:
    census = Census()
    return Admissions(Limits.model_validate(limits), census), census


def test_a_place_is_taken_at_once_and_the_next_waits_with_its_reason() -> None:
    queue, census = admissions(max_sessions=1, max_queued=2)
    assert queue.offer(session("a")) is None
    census.came(session("a"))
    assert queue.offer(session("b")) == Wait("sessions", 1)
    assert queue.offer(session("c")) == Wait("sessions", 2)
    assert queue.offer(session("d")) == Refusal("queue", 3)
    assert str(Refusal("queue", 3)) == "the queue is full: 2 sessions wait"
    assert queue.next() is None


def test_a_full_tenant_waits_and_holds_nobody_up() -> None:
    queue, census = admissions(max_sessions=9, tenants={"a": {"max_sessions": 1}})
    census.came(session("a0", tenant="a"))
    assert queue.offer(session("a1", tenant="a")) == Wait("tenant", 1)
    assert queue.offer(session("b1", tenant="b")) is None
    assert queue.next() is None
    census.went(session("a0", tenant="a"))
    queue.left("a")
    came = queue.next()
    assert came is not None
    assert came.session_id == "a1"
    assert len(queue) == 0


def test_live_sessions_come_first_and_tenants_take_turns() -> None:
    queue, census = admissions(max_sessions=1)
    first = session("first")
    census.came(first)
    for name in ("a0", "a1", "a2", "b0", "b1"):
        queue.offer(session(name, tenant=name[0]))
    assert queue.offer(session("live", tenant="c", priority="interactive")) == Wait("sessions", 1)
    order = []
    last = first
    while len(queue):
        census.went(last)
        queue.left(last.tenant)
        came = queue.next()
        assert came is not None
        census.came(last := came)
        order.append(last.session_id)
    assert order == ["live", "a0", "b0", "a1", "b1", "a2"]


def test_who_withdraws_is_passed_over() -> None:
    queue, census = admissions(max_sessions=1)
    census.came(session("first"))
    for name in ("a", "b"):
        queue.offer(session(name, tenant=name))
    assert queue.withdraw("a")
    assert not queue.withdraw("a")
    census.went(session("first"))
    came = queue.next()
    assert came is not None
    assert came.session_id == "b"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 3)), max_size=40), st.data())
def test_whatever_comes_is_let_in_once_refused_or_withdrawn(
    arrivals: list[tuple[str, bool, int]], data: st.DataObject
) -> None:
    tenants = {"a": TenantLimits(max_sessions=2), "b": TenantLimits(max_sessions=1)}
    queue, census = admissions(max_sessions=4, max_queued=8, tenants=tenants)
    inside: list[SessionSpec] = []
    outcome: dict[str, str] = {}

    def let_in(spec: SessionSpec) -> None:
        assert outcome.get(spec.session_id, "waits") == "waits"
        outcome[spec.session_id] = "in"
        census.came(spec)
        inside.append(spec)
        assert census.sessions <= 4
        assert census.tenants.get("a", 0) <= 2
        assert census.tenants.get("b", 0) <= 1

    def one_leaves() -> None:
        spec = inside.pop(data.draw(st.integers(0, len(inside) - 1)))
        census.went(spec)
        queue.left(spec.tenant)
        while (came := queue.next()) is not None:
            let_in(came)

    for number, (tenant, live, leaving) in enumerate(arrivals):
        spec = session(f"{tenant}{number}", tenant=tenant, priority="interactive" if live else "batch")
        answer = queue.offer(spec)
        if answer is None:
            let_in(spec)
        else:
            outcome[spec.session_id] = "waits" if isinstance(answer, Wait) else "refused"
        if leaving == 3 and outcome[spec.session_id] == "waits" and data.draw(st.booleans()):
            assert queue.withdraw(spec.session_id)
            outcome[spec.session_id] = "withdrawn"
        for _ in range(min(leaving, len(inside)) if leaving < 2 else 0):
            one_leaves()
    while inside:
        one_leaves()
    assert "waits" not in outcome.values()
    assert len(queue) == 0
