"""Dead letters over HTTP: for admins, newest first, replayed and discarded."""

from uuid import uuid4

import httpx
import pytest

from service.controllers.dead_letters import DeadLetterView
from service.controllers.schemas import PageView
from service.database import Databases
from service.domain.dead_letters import DeadLetter
from service.domain.outbox import OutboxTopic
from service.settings import Settings
from tests.factories import change, make_dead_letter, make_funded_wallet, make_user, withdrawal_of
from tests.refusals import refusal
from tests.staff import Staff

_PATH = "/admin/dead-letters"


@pytest.fixture
async def boss(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Staff:
    return await Staff.hire(api, databases, settings, "admin")


@pytest.fixture
async def letters(databases: Databases) -> list[DeadLetter]:
    """Three that nothing waits for, with an error of their own."""
    error_type = f"Error{uuid4().hex}"
    users = [await make_user(databases) for _ in range(3)]
    return [await make_dead_letter(databases, user.id, error_type=error_type) for user in users]


class TestTheList:
    async def test_is_newest_first_page_by_page(self, boss: Staff, letters: list[DeadLetter]) -> None:
        first = await boss.get(_PATH, limit=2, queue="outbox", state="dead")
        assert first.status_code == 200, first.text
        assert PageView[DeadLetterView](**first.json()).model_dump(mode="json") == first.json()
        assert [one["id"] for one in first.json()["data"]] == [letters[2].id, letters[1].id]
        cursor = first.json()["next_cursor"]
        second = await boss.get(_PATH, limit=2, queue="outbox", state="dead", cursor=cursor)
        assert second.json()["data"][0]["id"] == letters[0].id

    async def test_can_be_narrowed(self, boss: Staff, letters: list[DeadLetter]) -> None:
        await boss.post(f"{_PATH}/{letters[2].id}/replay")

        async def newest(**query: str) -> str:
            found = (await boss.get(_PATH, limit=1, **query)).json()["data"]
            return str(found[0]["id"]) if found else ""

        assert await newest() == letters[2].id
        assert await newest(state="dead") == letters[1].id
        assert await newest(state="replayed") == letters[2].id
        assert await newest(state="dead", queue="callbacks") not in {letter.id for letter in letters}


class TestOne:
    async def test_tells_why_and_nothing_of_the_row(self, boss: Staff, letters: list[DeadLetter]) -> None:
        answer = await boss.get(f"{_PATH}/{letters[0].id}")
        assert answer.status_code == 200, answer.text
        shown = answer.json()
        assert DeadLetterView(**shown).model_dump(mode="json") == shown
        assert (shown["queue"], shown["topic"], shown["state"]) == ("outbox", "password_notice", "dead")
        assert (shown["error_type"], shown["message"]) == (letters[0].error_type, "in a test")
        assert (shown["attempts"], shown["failures"], shown["request_id"]) == (0, 12, "a-request")
        assert "row" not in shown

    async def test_that_is_none_is_a_404(self, boss: Staff) -> None:
        for answer in (
            await boss.get(f"{_PATH}/dlq_none"),
            await boss.post(f"{_PATH}/dlq_none/replay"),
            await boss.post(f"{_PATH}/dlq_none/discard", reason="Not needed"),
        ):
            assert refusal(answer) == (404, "not_found")


class TestWhatIsDoneWithThem:
    async def test_one_is_replayed_and_the_second_time_nothing_happens(
        self, boss: Staff, databases: Databases, letters: list[DeadLetter]
    ) -> None:
        answers = [await boss.post(f"{_PATH}/{letters[0].id}/replay") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].json() == answers[1].json()
        assert (answers[0].json()["state"], answers[0].json()["ended_by"]) == ("replayed", boss.user.id)
        assert await databases.wallet["outbox"].find_one({"_id": letters[0].row_id}) is not None
        assert len(await boss.events(subject_id=letters[0].id)) == 1

    async def test_those_that_fit_are_replayed_and_counted(self, boss: Staff, letters: list[DeadLetter]) -> None:
        wanted = {"queue": "outbox", "topic": "password_notice", "error_type": letters[0].error_type}
        first = await boss.post(f"{_PATH}/replay", **wanted, limit=2)
        assert first.json() == {"replayed": 2, "has_more": True}
        second = await boss.post(f"{_PATH}/replay", **wanted)
        assert second.json() == {"replayed": 1, "has_more": False}

    async def test_one_is_discarded_with_a_reason(self, boss: Staff, letters: list[DeadLetter]) -> None:
        assert refusal(await boss.post(f"{_PATH}/{letters[0].id}/discard")) == (422, "invalid_fields")
        answer = await boss.post(f"{_PATH}/{letters[0].id}/discard", reason="Its user is gone")
        assert (answer.json()["state"], answer.json()["reason"]) == ("discarded", "Its user is gone")
        again = await boss.post(f"{_PATH}/{letters[0].id}/replay")
        assert refusal(again) == (409, "dead_letter_ended")
        assert again.json()["state"] == "discarded"

    async def test_what_money_waits_for_cannot_be_discarded(self, boss: Staff, databases: Databases) -> None:
        withdrawal = await change(databases, withdrawal_of(await make_funded_wallet(databases, 1_000), 500))
        letter = await make_dead_letter(databases, withdrawal.id, OutboxTopic.BANK_ORDER)
        answer = await boss.post(f"{_PATH}/{letter.id}/discard", reason="Not needed")
        assert refusal(answer) == (409, "dead_letter_needed")
        assert answer.json()["subject_id"] == withdrawal.id

    @pytest.mark.parametrize("role", [(), ("service",)], ids=["nobody special", "a service"])
    async def test_is_for_admins(
        self, api: httpx.AsyncClient, databases: Databases, settings: Settings, role: tuple[str, ...]
    ) -> None:
        somebody = await Staff.hire(api, databases, settings, *role)
        assert refusal(await somebody.get(_PATH)) == (403, "forbidden")
        assert refusal(await somebody.post(f"{_PATH}/replay")) == (403, "forbidden")
