"""The second factor under attack: whoever has the password alone adds no app, guesses no code, and is seen."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest
from fastapi import FastAPI

from service.database import Databases
from service.domain.clock import utc_now
from service.domain.outbox import OutboxTopic
from service.repositories import outbox as outbox_repository
from service.services.outbox import pursue_row
from service.services.settlement import Desk
from service.settings import Settings
from service.startup import Resources
from tests.factories import PASSWORD, current, make_account
from tests.logins import OUT, Login, audit_actions
from tests.payer import Payer, enrol, mailed_code, right_code, wrong_code
from tests.refusals import refusal

_BALANCE = 100_000_000
_LARGE = 30_000_000
_INVALID, _TOO_MANY = (422, "invalid_code"), (429, "too_many_attempts")


@pytest.fixture
async def payer(api: httpx.AsyncClient, databases: Databases) -> Payer:
    """With a session, as whoever has the password can have one."""
    account = await make_account(databases, balance=_BALANCE)
    login = await Login.of(api, account.user)
    return Payer(api, account, login.headers)


async def begin(payer: Payer) -> pyotp.TOTP:
    answer = await payer.post("/me/totp", {"password": PASSWORD})
    assert answer.status_code == 201, answer.text
    return pyotp.TOTP(answer.json()["secret"])


async def activate(payer: Payer, code: str, **more: Any) -> httpx.Response:
    return await payer.post("/me/totp/confirm", {"code": code, **more})


async def mails_of(payer: Payer, resources: Resources) -> list[dict[str, str]]:
    """What workers send to the payer about the second factor by now."""
    desk = Desk(resources.ledger, resources.bank, resources.mailbox, resources.settings, resources.databases.client)
    topics = [OutboxTopic.FACTOR_CODE, OutboxTopic.FACTOR_NOTICE]
    rows = await outbox_repository.claim(now=utc_now() + timedelta(seconds=1), lease_s=60, limit=100, topics=topics)
    for row in rows:
        await pursue_row(row, desk)
    return _read_mails(resources.settings.mailbox_path, payer.account.user.email)


def _read_mails(path: str, email: str) -> list[dict[str, str]]:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [mail for mail in map(json.loads, lines) if mail["to"] == email]


class TestAThiefOfThePassword:
    async def test_adds_no_app_that_confirms_a_payment(self, payer: Payer) -> None:
        asked = (await payer.withdraw(_LARGE)).json()
        app = await begin(payer)
        code = app.at(utc_now())
        assert (await activate(payer, code)).status_code == 422
        assert (await activate(payer, code, mailed_code="123456")).status_code == 422
        assert (await payer.get("/me/totp")).json()["status"] == "pending"
        assert refusal(await payer.confirm(asked, app.at(utc_now(), counter_offset=1))) == _INVALID

    async def test_gains_no_tries_by_beginning_anew(self, payer: Payer) -> None:
        refused = set()
        for _ in range(4):
            app = await begin(payer)
            wrong = wrong_code(await mailed_code(payer.api, payer.headers))
            refused |= {refusal(await activate(payer, app.at(utc_now()), mailed_code=wrong)) for _ in range(2)}
            if _TOO_MANY in refused:
                break
        assert _TOO_MANY in refused

    async def test_fills_no_mailbox(self, payer: Payer) -> None:
        for _ in range(5):
            await begin(payer)
        assert refusal(await payer.post("/me/totp", {"password": PASSWORD})) == _TOO_MANY

    async def test_is_seen_by_the_owner_and_on_record(self, payer: Payer, resources: Resources) -> None:
        app = await begin(payer)
        (mail,) = await mails_of(payer, resources)
        assert mail["text"].startswith(f"Your code is {await mailed_code(payer.api, payer.headers)}\n")
        codes = {"mailed_code": await mailed_code(payer.api, payer.headers)}
        recovery = (await activate(payer, app.at(utc_now()), **codes)).json()["recovery_codes"]
        fresh = (await payer.post("/me/totp/recovery-codes", {"code": recovery[0]})).json()["recovery_codes"]
        asked = (await payer.withdraw(_LARGE)).json()
        assert (await payer.confirm(asked, fresh[0])).is_success
        assert (await payer.post("/me/totp/disable", {"password": PASSWORD, "code": fresh[1]})).status_code == 200
        actions = await audit_actions(resources.databases, payer.account.user)
        assert actions == [
            "user.logged_in",
            "totp.enrolled",
            "totp.activated",
            "totp.recovery_codes_renewed",
            "totp.recovery_code_used",
            "totp.removed",
        ]
        _, *notices = await mails_of(payer, resources)
        assert [notice["text"].partition(" at ")[0] for notice in notices] == [
            "An authenticator app was added to your account",
            "New recovery codes were made for your account",
            "A recovery code of your account was used",
            "The authenticator app was removed from your account",
        ]


class TestANewApp:
    @pytest.fixture
    def waits(self, app: FastAPI, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = resources.settings.model_copy(update={"totp_wait_s": 3600})
        monkeypatch.setitem(app.state._state, "resources", resources._replace(settings=settings))

    @pytest.mark.usefixtures("waits")
    async def test_confirms_no_payment_before_its_time_and_the_mailed_code_does(
        self, payer: Payer, databases: Databases, resources: Resources
    ) -> None:
        code, recovery_codes = await enrol(payer.api, payer.headers)
        asked = (await payer.withdraw(_LARGE)).json()
        for early in (code, recovery_codes[0]):
            assert refusal(await payer.confirm(asked, early)) == _INVALID
        assert (await payer.confirm(asked, await right_code(databases, resources.settings, asked))).is_success
        state = (await payer.get("/me/totp")).json()
        assert (state["status"], state["recovery_codes_left"]) == ("active", 10)
        assert state["confirms_payments_from"] > state["activated_at"]

    @pytest.mark.usefixtures("waits")
    async def test_confirms_once_its_time_has_come(self, payer: Payer, databases: Databases) -> None:
        code, _ = await enrol(payer.api, payer.headers)
        past = {"$set": {"confirms_from": utc_now()}}
        await databases.wallet["totp_enrolments"].update_one({"_id": payer.account.user.id}, past)
        asked = (await payer.withdraw(_LARGE)).json()
        assert (await payer.confirm(asked, code)).is_success

    @pytest.mark.parametrize("change", ["activate", "renew", "remove"])
    async def test_ends_other_sessions_where_that_is_asked_for(self, payer: Payer, change: str) -> None:
        thief = await Login.of(payer.api, payer.account.user)
        others = {"end_other_sessions": True}
        if change == "activate":
            app = await begin(payer)
            mailed = await mailed_code(payer.api, payer.headers)
            answer = await activate(payer, app.at(utc_now()), mailed_code=mailed, **others)
        else:
            code, _ = await enrol(payer.api, payer.headers)
            path = "/me/totp/recovery-codes" if change == "renew" else "/me/totp/disable"
            password = {} if change == "renew" else {"password": PASSWORD}
            answer = await payer.post(path, {"code": code, **password, **others})
        assert answer.status_code == 200, answer.text
        assert refusal(await thief.api.get("/api/v1/me", headers=thief.headers)) == OUT
        assert (await payer.get("/me")).status_code == 200


class TestMailedCodes:
    async def test_are_guessed_no_more_often_over_many_payments(
        self, payer: Payer, databases: Databases, resources: Resources
    ) -> None:
        refused = []
        for _ in range(3):
            asked = (await payer.withdraw(_LARGE)).json()
            right = await right_code(databases, resources.settings, asked)
            refused += [refusal(await payer.confirm(asked, wrong_code(right))) for _ in range(2)]
        assert refused == [_INVALID] * 5 + [_TOO_MANY]
        # The right one waits as well: whether it is right is not looked at.
        assert refusal(await payer.confirm(asked, right)) == _TOO_MANY

    async def test_that_are_right_end_the_count(self, payer: Payer, databases: Databases, resources: Resources) -> None:
        for _ in range(2):
            asked = (await payer.withdraw(_LARGE)).json()
            right = await right_code(databases, resources.settings, asked)
            for _ in range(3):
                assert refusal(await payer.confirm(asked, wrong_code(right))) == _INVALID
            assert (await payer.confirm(asked, right)).is_success

    async def test_of_a_payment_and_of_a_new_app_are_counted_together(
        self, payer: Payer, databases: Databases, resources: Resources
    ) -> None:
        asked = (await payer.withdraw(_LARGE)).json()
        wrong = wrong_code(await right_code(databases, resources.settings, asked))
        for _ in range(4):
            await payer.confirm(asked, wrong)
        app = await begin(payer)
        assert refusal(await activate(payer, app.at(utc_now()), mailed_code="1")) == _INVALID
        assert refusal(await payer.confirm(asked, wrong)) == _TOO_MANY

    async def test_that_fail_leave_the_payment_counted(
        self, payer: Payer, databases: Databases, resources: Resources
    ) -> None:
        asked = (await payer.withdraw(_LARGE)).json()
        wrong = wrong_code(await right_code(databases, resources.settings, asked))
        codes = [refusal(await payer.confirm(asked, wrong))[1] for _ in range(5)]
        assert codes == ["invalid_code"] * 4 + ["too_many_tries"]
        usage = (await current(payer.wallet)).usage
        assert (usage.hour_count, usage.day_amount) == (1, 0)

    async def test_that_failed_once_leave_it_counted_however_it_ends(
        self, payer: Payer, databases: Databases, resources: Resources
    ) -> None:
        asked = (await payer.withdraw(_LARGE)).json()
        wrong = wrong_code(await right_code(databases, resources.settings, asked))
        assert refusal(await payer.confirm(asked, wrong)) == _INVALID
        untouched = (await payer.withdraw(_LARGE)).json()
        assert [(await payer.cancel(one)).status_code for one in (asked, untouched)] == [200, 200]
        usage = (await current(payer.wallet)).usage
        assert (usage.hour_count, usage.day_amount) == (1, 0)


class TestManySmallPayments:
    """None of them is above the amount that asks for a code; together they are above the day's sum."""

    @pytest.fixture(autouse=True)
    def day_sum(self, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
        policy = resources.ledger.policy._replace(step_up_day_above={"INR": 50_000})
        monkeypatch.setattr(resources.ledger, "policy", policy)

    async def test_ask_for_a_code_from_the_days_sum_on(
        self, payer: Payer, databases: Databases, resources: Resources
    ) -> None:
        recipient = (await make_account(databases)).wallet.id
        answers = [
            await payer.withdraw(20_000),
            await payer.send(to_wallet_id=recipient, amount=30_000),
            await payer.withdraw(1),
            await payer.send(to_wallet_id=recipient, amount=1),
        ]
        assert [one.json()["status"] for one in answers] == ["pending", "success", *["requires_approval"] * 2]
        for asked in (one.json() for one in answers[2:]):
            assert (await payer.confirm(asked, await right_code(databases, resources.settings, asked))).is_success

    async def test_at_once_pass_no_further_than_one_after_the_other(self, payer: Payer, databases: Databases) -> None:
        recipient = (await make_account(databases)).wallet.id
        answers = await asyncio.gather(*(payer.send(to_wallet_id=recipient, amount=20_000) for _ in range(6)))
        statuses = sorted(one.json()["status"] for one in answers)
        assert statuses == ["requires_approval"] * 4 + ["success"] * 2
        assert (await current(payer.wallet)).available == _BALANCE - 6 * 20_000

    async def test_in_one_batch_are_summed_too(self, payer: Payer, databases: Databases) -> None:
        recipient = (await make_account(databases)).wallet.id
        answer = await payer.batch("best_effort", [{"to_wallet_id": recipient, "amount": 20_000}] * 3)
        assert [one["status"] for one in answer.json()["results"]] == ["success", "success", "requires_approval"]

    async def test_are_not_gone_around_by_a_hold(self, payer: Payer) -> None:
        assert (await payer.withdraw(50_000)).json()["status"] == "pending"
        body = {"wallet_id": payer.wallet.id, "amount": 1, "currency": "INR"}
        assert refusal(await payer.post("/holds", body)) == (422, "hold_above_step_up")

    def test_are_summed_by_default_wherever_a_single_one_asks_for_a_code(self) -> None:
        settings = Settings(_env_file=None)
        assert settings.step_up_day_above.keys() == settings.step_up_above.keys()
        assert all(settings.step_up_day_above[name] > above for name, above in settings.step_up_above.items())

    def test_end_at_a_limit_by_default(self) -> None:
        settings = Settings(_env_file=None)
        assert settings.limits.keys() == settings.step_up_above.keys()
        for currency, limits in settings.limits.items():
            assert settings.step_up_day_above[currency] < limits.per_day < limits.per_month
