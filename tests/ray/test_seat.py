"""A seat: who is asked for it leaves, and so does who has lost it."""

from __future__ import annotations

import asyncio

import pytest
import ray
from ray.util import list_named_actors

from actors.cluster import NAMESPACE
from actors.seat import seated
from gamecraft_core.base.errors import LaneLost
from tests.ray.serving import DEADLINE_S
from tests.servers.cluster import RayCluster

pytestmark = pytest.mark.ray


async def lost() -> None:
    """Sit, lose the seat, and stay until told to leave."""
    left = asyncio.Event()
    async with seated("somewhere", left.set):
        (name,) = (each["name"] for each in list_named_actors(all_namespaces=True) if each["name"].startswith("seat/"))
        ray.kill(ray.get_actor(name, namespace=NAMESPACE))
        await left.wait()


async def handed_over() -> list[str]:
    """One sits until another asks for the seat."""
    told: list[str] = []

    async def sit(name: str, end: asyncio.Event) -> None:
        async with seated("elsewhere", end.set):
            told.append(f"{name} sits")
            begun.set()
            await end.wait()
            told.append(f"{name} leaves")

    begun, end = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(sit("first", end))
    await begun.wait()
    end_of_second = asyncio.Event()
    second = asyncio.create_task(sit("second", end_of_second))
    await first
    end_of_second.set()
    await second
    return told


def test_who_has_lost_the_seat_leaves_and_says_so(ray_cluster: RayCluster) -> None:
    with pytest.raises(LaneLost, match="the seat is lost"):
        asyncio.run(asyncio.wait_for(lost(), DEADLINE_S))


def test_the_seat_is_handed_over_when_who_had_it_has_left(ray_cluster: RayCluster) -> None:
    told = asyncio.run(asyncio.wait_for(handed_over(), DEADLINE_S))
    assert told == ["first sits", "first leaves", "second sits", "second leaves"]
