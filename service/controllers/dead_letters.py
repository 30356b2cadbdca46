"""Dead letters over HTTP, for admins."""

from typing import Annotated, Any

import orjson
from asgi_correlation_id import correlation_id
from fastapi import Path, Query, Response
from pydantic import ConfigDict, Field

from service.controllers.answers import json_response
from service.controllers.dependencies import OpenResources, require
from service.controllers.fields import Reason
from service.controllers.pagination import PageQuery, open_page, page_of
from service.controllers.requests import StrictModel
from service.controllers.routing import api_router
from service.controllers.schemas import PageView, View, problem_responses
from service.domain.dead_letters import DeadLetter, DeadLetterState, Queue, dead_letter_view
from service.domain.permissions import Permission
from service.errors import DeadLetterEnded, DeadLetterNeeded, NotFound
from service.services import dead_letters
from service.services.callers import Caller
from service.services.dead_letters import DeadLetterFilter

router = api_router("Dead letters", prefix="/admin/dead-letters")

_LetterId = Annotated[str, Path(max_length=64, examples=["dlq_0198c0ffee0070008000000000000001"])]
_Admin = Annotated[Caller, require(Permission.DEAD_LETTERS_ADMIN)]
_MOST_AT_ONCE = 1000

_EXAMPLE: dict[str, Any] = {
    "id": "dlq_0198c0ffee0070008000000000000001",
    "queue": "outbox",
    "row_id": "reward:dep_0198c0ffee0070008000000000000001",
    "subject_id": "dep_0198c0ffee0070008000000000000001",
    "topic": "reward",
    "error_type": "KeyError",
    "message": "in earn_points (rewards.py:87)",
    "attempts": 12,
    "failures": 12,
    "request_id": "5f0c3e1b9a7d4c2e8b6a1d3f5e7c9b0a",
    "first_failed_at": "2026-02-24T12:34:56.789Z",
    "last_failed_at": "2026-02-24T13:04:12.345Z",
    "state": "dead",
    "ended_by": None,
    "ended_at": None,
    "reason": None,
}
_TIME: Any = {"json_schema_extra": {"format": "date-time"}}
_Name = Annotated[str | None, Field(max_length=64, pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")]


class DeadLetterView(View):
    """A row of a queue that no try has brought to an end. What the row holds is not shown."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    queue: Queue
    row_id: str
    subject_id: str = Field(description="What the row is about: an operation, a hold, a user")
    topic: str | None = Field(description="Of an outbox row")
    error_type: str = Field(description="Of the last failure; its traceback is in the worker's log, by the request_id")
    message: str = Field(description="The service's own words, or else where it was raised")
    attempts: int = Field(ge=0, description="How often a worker took it")
    failures: int = Field(ge=1, description="How often its work raised")
    request_id: str | None
    first_failed_at: str = Field(**_TIME)
    last_failed_at: str = Field(**_TIME)
    state: DeadLetterState
    ended_by: str | None = Field(description="Who replayed or discarded it")
    ended_at: str | None = Field(**_TIME)
    reason: str | None = Field(description="Why it was discarded")


class DeadLettersQuery(PageQuery):
    queue: Annotated[Queue | None, Field(description="Of this queue only")] = None
    state: Annotated[DeadLetterState | None, Field(description="dead: what waits for somebody")] = None

    @property
    def wanted(self) -> DeadLetterFilter:
        return DeadLetterFilter(self.queue, self.state)


class ReplayRequest(StrictModel):
    """Which ones: all that are dead, or those that fit everything that is given."""

    queue: Annotated[Annotated[Queue, Field(strict=False)] | None, Field(examples=["outbox"])] = None
    topic: Annotated[_Name, Field(description="Of outbox rows", examples=["reward"])] = None
    error_type: Annotated[_Name, Field(examples=["KeyError"])] = None
    limit: Annotated[int, Field(ge=1, le=_MOST_AT_ONCE, description="The oldest first", examples=[100])] = 100

    @property
    def wanted(self) -> DeadLetterFilter:
        return DeadLetterFilter(queue=self.queue, topic=self.topic, error_type=self.error_type)


class ReplayedView(View):
    model_config = ConfigDict(json_schema_extra={"examples": [{"replayed": 3, "has_more": False}]})

    replayed: int = Field(ge=0, description="How many went back to their queues")
    has_more: bool = Field(description="Whether more of them fit: ask again")


class DiscardRequest(StrictModel):
    reason: Annotated[Reason, Field(examples=["Its user is gone"])]


@router.get(
    "",
    response_model=PageView[DeadLetterView],
    summary="What no try has brought to an end, newest first",
    description="Each waits until somebody replays or discards it. By queue and state.",
)
async def list_dead_letters(
    query: Annotated[DeadLettersQuery, Query()], user: _Admin, resources: OpenResources
) -> Response:
    page = open_page(query, resources.settings, "dead_letters", user.user_id, str)
    found = await dead_letters.list_dead_letters(query.wanted, before_id=page.position, limit=page.limit_and_one)
    return page_of(found, page, lambda letter: letter.id, dead_letter_view)


@router.post(
    "/replay",
    response_model=ReplayedView,
    summary="Put many back into their queues",
    description="Once the defect is mended. Each goes back once, whoever else asks, and is an audit event.",
)
async def replay_dead_letters(body: ReplayRequest, user: _Admin, resources: OpenResources) -> Response:
    client, jobs = resources.databases.client, resources.jobs
    done = await dead_letters.replay_many(client, user, body.wanted, body.limit, correlation_id.get(), jobs)
    answer = orjson.dumps({"replayed": done.letters, "has_more": done.has_more})
    return Response(answer, media_type="application/json")


@router.get(
    "/{dead_letter_id}",
    response_model=DeadLetterView,
    responses=problem_responses(NotFound),
    summary="One dead letter",
    description="Why it failed, how often, and what became of it.",
)
async def get_dead_letter(dead_letter_id: _LetterId, _user: _Admin) -> Response:
    return _shape(await dead_letters.get_dead_letter(dead_letter_id))


@router.post(
    "/{dead_letter_id}/replay",
    response_model=DeadLetterView,
    responses=problem_responses(NotFound, DeadLetterEnded),
    summary="Put one back into its queue",
    description="With fresh attempts, due at once. Repeating it changes nothing and answers 200. One that fails again "
    "becomes a new dead letter.",
)
async def replay_dead_letter(dead_letter_id: _LetterId, user: _Admin, resources: OpenResources) -> Response:
    client, jobs = resources.databases.client, resources.jobs
    return _shape(await dead_letters.replay(client, user, dead_letter_id, correlation_id.get(), jobs))


@router.post(
    "/{dead_letter_id}/discard",
    response_model=DeadLetterView,
    responses=problem_responses(NotFound, DeadLetterEnded, DeadLetterNeeded),
    summary="Give one up",
    description="For good. Refused where money would be left waiting for it. Repeating it changes nothing and answers "
    "200.",
)
async def discard_dead_letter(
    body: DiscardRequest, dead_letter_id: _LetterId, user: _Admin, resources: OpenResources
) -> Response:
    client = resources.databases.client
    return _shape(await dead_letters.discard(client, user, dead_letter_id, body.reason, correlation_id.get()))


def _shape(letter: DeadLetter) -> Response:
    return json_response(dead_letter_view(letter))
