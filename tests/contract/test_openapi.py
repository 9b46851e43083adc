"""The API is what its description says: Schemathesis reads that, and sends what fits it and what does not.

Of the ids that it makes up none exists, and no picture that it makes up is one; so those of real sessions and a real
picture are mixed in, that requests get beyond the door. The examples are a fixed number, the same in every run.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation, BaseSchema
from schemathesis.specs.openapi.checks import positive_data_acceptance

from orchestrator.http.client import Client
from orchestrator.limits import Limits
from tests.fakes.studio import picture
from tests.fakes.web import begun, finished, quick_studio, served

Operation = APIOperation[Any, Any, Any, Any]

EXAMPLES, SEED = 60, 7
TIMEOUT_S = 30

#: These go on for as long as a session does.
STREAMS = ("/events", "/stream.mp4")
INLINE = "data:image/png;base64," + base64.b64encode(picture()).decode()
#: What a body needs to be more than well-formed.
SENSE: dict[str, dict[str, Any]] = {
    "/v1/sessions": {"prompt": "A harbour.", "image": INLINE},
    "/v1/videos": {"prompt": "A harbour.", "input_reference": INLINE},
    "/v1/sessions/{session_id}/controls": {"actions": "w d"},
}


@dataclass
class Api:
    """A running service and its description; ``settled`` are sessions of it, ``answered`` counts its answers."""

    schema: BaseSchema
    http: httpx.Client
    settled: tuple[str, ...]
    answered: Counter[tuple[str, int]] = field(default_factory=Counter)

    def operations(self) -> list[Operation]:
        found = list(self.schema.get_all_operations())
        readable = [each.ok() for each in found if isinstance(each, Ok)]
        assert len(readable) == len(found) > 0, found
        return readable

    def send(self, case: Case[Any]) -> None:
        response = case.call(timeout=TIMEOUT_S)
        self.answered[case.operation.label, response.status_code] += 1
        # no schema can say which text is a picture or an action
        case.validate_response(response, excluded_checks=[positive_data_acceptance])

    def existing(self, operation: Operation) -> tuple[str, ...]:
        """Ids of sessions with which ``operation`` gets an answer."""
        fresh = begun(self.http, actions="w")["id"]
        if operation.method == "delete":
            return (fresh,)
        return self.settled if operation.path.endswith(STREAMS) else (*self.settled, fresh)


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with (
        served(lambda: quick_studio(limits=Limits(max_sessions=10_000))) as web,
        Client(web.url) as client,
        httpx.Client(base_url=web.url) as http,
    ):
        schema = schemathesis.openapi.from_url(f"{web.url}/openapi.json", config=schemathesis.Config(seed=SEED))
        cancelled = begun(http)["id"]
        client.cancel(cancelled)
        yield Api(schema, http, (finished(client, http), cancelled))


def made_sensible(data: st.DataObject, api: Api, case: Case[Any]) -> None:
    """Put into ``case`` what is there: the id of a session, a picture, actions."""
    for name in case.path_parameters or ():
        case.path_parameters = {name: data.draw(st.sampled_from(api.existing(case.operation)))}
    sense = SENSE.get(case.operation.path)
    if sense and case.media_type == "application/json":
        given = case.body if isinstance(case.body, dict) else {}
        case.body = data.draw(st.sampled_from([sense, {**given, **sense}]))


def fuzz(api: Api, operation: Operation, mode: GenerationMode) -> None:
    @settings(max_examples=EXAMPLES, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def send(data: st.DataObject) -> None:
        case: Case[Any] = data.draw(operation.as_strategy(generation_mode=mode))
        if data.draw(st.booleans()):
            made_sensible(data, api, case)
        api.send(case)

    with suppress(Unsatisfiable):  # where nothing can be wrong
        send()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_described(api: Api, mode: GenerationMode) -> None:
    generation = api.schema.config.generation
    for operation in api.operations():
        for case in api.schema.iter_coverage_cases(operation, generation_modes=[mode], generation_config=generation):
            api.send(case)
        fuzz(api, operation, mode)
    if mode is GenerationMode.POSITIVE:
        succeeded = {label for label, status in api.answered if status < 300}
        assert succeeded == {operation.label for operation in api.operations()}, "and every one was got to work"
