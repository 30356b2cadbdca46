"""A user's webhooks are so many an hour: one request that leads to thousands keeps no worker from the others' work."""

from collections.abc import AsyncIterator

import pytest

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.webhook_deliveries import HELD_BACK, DeliveryStatus
from service.startup import Resources
from tests.factories import make_user
from tests.receivers import Receiver, running_receiver
from tests.webhooks import change_delivery, deliver_due, deliveries_of, make_courier, make_endpoint, make_event, queue

_PER_HOUR = 3


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver


class TestADelivery:
    async def test_waits_beyond_the_users_bound_and_says_so(
        self, resources: Resources, databases: Databases, receiver: Receiver
    ) -> None:
        greedy, stranger = await make_user(databases), await make_user(databases)
        theirs = (await make_endpoint(resources, greedy, receiver.url())).endpoint
        other = (await make_endpoint(resources, stranger, receiver.url())).endpoint
        courier = make_courier(resources, webhook_deliveries_per_hour=_PER_HOUR)
        await queue(resources, *(make_event(greedy, number) for number in range(1, _PER_HOUR + 3)))
        await queue(resources, make_event(stranger, 1))
        await deliver_due(courier)
        deliveries = await deliveries_of(theirs)
        waiting = [one for one in deliveries if one.status is DeliveryStatus.PENDING]
        assert len(deliveries) - len(waiting) == _PER_HOUR
        for one in waiting:
            # Its owner sees why, and when it is tried; its schedule has not begun.
            assert ([at_a_time["error"] for at_a_time in one.tries], one.attempts) == ([HELD_BACK], 0)
            assert one.due_at is not None
            assert one.due_at > utc_now()
        assert [one.status for one in await deliveries_of(other)] == [DeliveryStatus.DELIVERED]
        # Too early it waits on, with one note only; in the end it arrives.
        late = waiting[0]
        await change_delivery(databases, late.id, due_at=utc_now())
        await deliver_due(courier)
        (still,) = [one for one in await deliveries_of(theirs) if one.id == late.id]
        assert (still.status, len(still.tries), still.attempts) == (DeliveryStatus.PENDING, 1, 0)
        # Told by the time of the note: whether the clock was ahead when the next try was set.
        assert still.tries[-1]["at"] > late.tries[-1]["at"]
        await change_delivery(databases, late.id, due_at=utc_now())
        await deliver_due(make_courier(resources, webhook_deliveries_per_hour=_PER_HOUR + 2))
        (arrived,) = [one for one in await deliveries_of(theirs) if one.id == late.id]
        assert (arrived.status, arrived.attempts) == (DeliveryStatus.DELIVERED, 1)
