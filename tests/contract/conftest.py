"""The service on a real web server with emulated lanes, once a module, and ways to ask it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from orchestrator.http.client import Client
from tests.fakes.web import Web, quick_studio, served


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with served(quick_studio) as running:
        yield running


@pytest.fixture
def http(web: Web) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=web.url) as client:
        yield client


@pytest.fixture
def client(web: Web) -> Iterator[Client]:
    with Client(web.url) as made:
        yield made
