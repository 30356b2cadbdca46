"""Breaks over HTTP: lists, what admins say of them, and what an open one keeps shut."""

import asyncio

import httpx
import pytest

from service.database import Databases
from service.domain.bank_lines import BankLine, Flow
from service.domain.breaks import Break, BreakKind, Finding
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.reconciliation import judge_lines
from service.services.breaks import report
from service.settings import Settings
from service.startup import Resources
from tests.factories import current, make_account, make_break, make_funded_wallet, make_wallet
from tests.refusals import refusal
from tests.staff import Staff

_WHY = "A repair by hand"


@pytest.fixture
async def boss(api: httpx.AsyncClient, databases: Databases, settings: Settings) -> Staff:
    return await Staff.hire(api, databases, settings, "admin")


class TestLists:
    async def test_are_newest_first_in_pages_and_narrowed_by_all_filters(self, boss: Staff) -> None:
        operation_id = new_id(Prefix.WITHDRAWAL)
        made = [await make_break(operation_id=operation_id) for _ in range(3)]
        first = (await boss.get("/admin/breaks", operation_id=operation_id, limit=2)).json()
        cursor = first["next_cursor"]
        rest = (await boss.get("/admin/breaks", operation_id=operation_id, limit=2, cursor=cursor)).json()
        shown = [one["id"] for one in (*first["data"], *rest["data"])]
        assert shown == [one.id for one in reversed(made)]
        for other in ({"kind": "paid_twice"}, {"state": "resolved"}, {"day": "2026-11-19"}, {"wallet_id": "wal_none"}):
            assert (await boss.get("/admin/breaks", operation_id=operation_id, **other)).json()["data"] == []
        same = {"kind": "missing_here", "state": "open", "day": "2026-11-20"}
        assert len((await boss.get("/admin/breaks", operation_id=operation_id, **same)).json()["data"]) == 3

    async def test_one_is_shown_with_all_that_is_known_of_it(self, boss: Staff) -> None:
        one = await make_break()
        shown = (await boss.get(f"/admin/breaks/{one.id}")).json()
        assert (shown["subject"], shown["found"], shown["explained"]) == (one.subject, one.found, None)
        assert refusal(await boss.get("/admin/breaks/brk_none")) == (404, "not_found")

    async def test_shows_numbers_that_readers_would_change_as_their_digits(self, boss: Staff) -> None:
        """Damaged documents have what no rule would let through, and many lines may add up to more than 64 bits."""
        line = BankLine("wdr_none", Flow.PAYOUT, 2**53 - 1, "INR", utc_now())
        judged = judge_lines("wdr_none", [line] * 1_025, None, (), day="2026-11-20", booked_before=utc_now())
        (finding,) = judged.findings
        one = await make_break(expected={"available": 2**62}, found={**finding.found, "held": -(2**62)})
        shown = (await boss.get(f"/admin/breaks/{one.id}")).json()
        assert shown["expected"] == {"available": str(2**62)}
        assert (shown["found"]["amount"], shown["found"]["held"]) == (str(1_025 * (2**53 - 1)), str(-(2**62)))


class TestWords:
    async def test_an_open_one_is_explained_and_then_resolved_each_with_its_audit_event(self, boss: Staff) -> None:
        one = await make_break()
        explained = await boss.post(f"/admin/breaks/{one.id}/explain", reason=_WHY)
        assert explained.status_code == 200, explained.text
        assert explained.json()["state"] == "explained"
        assert explained.json()["explained"]["by"] == boss.user.id
        resolved = await boss.post(f"/admin/breaks/{one.id}/resolve", reason="Done")
        assert (resolved.json()["state"], resolved.json()["resolved"]["reason"]) == ("resolved", "Done")
        events = await boss.events(subject_id=one.id)
        assert [(event["action"], event["reason"]) for event in events] == [
            ("break.resolved", "Done"),
            ("break.explained", _WHY),
        ]

    async def test_no_state_is_left_twice(self, boss: Staff) -> None:
        one = await make_break()
        await boss.post(f"/admin/breaks/{one.id}/explain", reason=_WHY)
        again = await boss.post(f"/admin/breaks/{one.id}/explain", reason=_WHY)
        assert refusal(again) == (409, "illegal_transition")
        await boss.post(f"/admin/breaks/{one.id}/resolve", reason=_WHY)
        for verb in ("explain", "resolve"):
            again = await boss.post(f"/admin/breaks/{one.id}/{verb}", reason=_WHY)
            assert refusal(again) == (409, "illegal_transition")

    async def test_of_many_at_once_one_resolves_it(self, boss: Staff) -> None:
        one = await make_break()
        said = await asyncio.gather(*(boss.post(f"/admin/breaks/{one.id}/resolve", reason=_WHY) for _ in range(8)))
        assert sorted(answer.status_code for answer in said) == [200] + [409] * 7
        assert len(await boss.events(subject_id=one.id)) == 1

    async def test_a_reason_is_required(self, boss: Staff) -> None:
        one = await make_break()
        assert (await boss.post(f"/admin/breaks/{one.id}/resolve")).status_code == 422


class TestOnesOwn:
    @pytest.mark.parametrize("verb", ["explain", "resolve"])
    async def test_is_for_another_admin(
        self, boss: Staff, api: httpx.AsyncClient, databases: Databases, settings: Settings, verb: str
    ) -> None:
        one = await make_break(wallet_id=(await make_wallet(databases, boss.user)).id)
        refused = await boss.post(f"/admin/breaks/{one.id}/{verb}", reason=_WHY)
        assert refusal(refused) == (403, "second_admin_required")
        other = await Staff.hire(api, databases, settings, "admin")
        assert (await other.post(f"/admin/breaks/{one.id}/{verb}", reason=_WHY)).status_code == 200


class TestABrokenWallet:
    async def test_is_shut_by_the_system_and_opened_by_an_admin_once_it_is_explained(
        self, boss: Staff, databases: Databases, resources: Resources
    ) -> None:
        wallet = await make_funded_wallet(databases)
        finding = Finding(BreakKind.WALLET_BALANCE, wallet.id, {"available": 1}, {"available": 2}, wallet.id)
        one = await report(finding, resources.ledger, utc_now())
        for path, body in (("unfreeze", {}), ("freeze", {"direction": "out"}), ("freeze", {"direction": "in"})):
            refused = await boss.post(f"/wallets/{wallet.id}/{path}", reason=_WHY, **body)
            assert refusal(refused) == (409, "wallet_books_disagree")
            assert refused.json()["break_id"] == one.id
        # Shut both ways it is already.
        assert (await boss.post(f"/wallets/{wallet.id}/freeze", reason=_WHY)).json()["frozen"] == "both"
        await boss.post(f"/admin/breaks/{one.id}/explain", reason=_WHY)
        assert (await boss.post(f"/wallets/{wallet.id}/unfreeze", reason=_WHY)).json()["status"] == "active"
        (frozen,) = await boss.events(subject_id=wallet.id, action="wallet.frozen")
        assert (frozen["actor_id"], one.id in frozen["reason"]) == ("system", True)

    async def test_is_shut_again_for_damage_beyond_what_was_explained(
        self, boss: Staff, databases: Databases, resources: Resources
    ) -> None:
        wallet = await make_funded_wallet(databases)

        async def look(expected: int, found: int) -> Break:
            facts = {"available": expected, "held": 0}, {"available": found, "held": 0}
            return await report(
                Finding(BreakKind.WALLET_BALANCE, wallet.id, *facts, wallet.id), resources.ledger, utc_now()
            )

        one = await look(1_000, 1_001)
        await boss.post(f"/admin/breaks/{one.id}/explain", reason=_WHY)
        await boss.post(f"/wallets/{wallet.id}/unfreeze", reason=_WHY)
        # Traffic moves both sides; what is wrong is the same.
        assert (await look(1_500, 1_501)).state == "explained"
        assert (await current(wallet)).status == "active"
        worse = await look(1_500, 10_001_501)
        assert (worse.id, worse.state, worse.found["available"], worse.times_seen) == (one.id, "open", 10_001_501, 3)
        assert (await current(wallet)).freeze == "both"
        refused = await boss.post(f"/wallets/{wallet.id}/unfreeze", reason=_WHY)
        assert refusal(refused) == (409, "wallet_books_disagree")
        explained = await boss.post(f"/admin/breaks/{one.id}/explain", reason="All of it")
        assert explained.json()["explained"]["reason"] == "All of it"

    async def test_is_shut_again_when_another_entry_is_missing(
        self, boss: Staff, databases: Databases, resources: Resources
    ) -> None:
        wallet = await make_funded_wallet(databases)

        async def look(seq: int) -> Break:
            finding = Finding(BreakKind.ENTRIES_MISSING, wallet.id, {"seq": seq}, {"seq": seq + 1}, wallet.id)
            return await report(finding, resources.ledger, utc_now())

        one = await look(7)
        await boss.post(f"/admin/breaks/{one.id}/explain", reason=_WHY)
        assert [(await look(seq)).state for seq in (7, 3)] == ["explained", "open"]

    async def test_is_closed_by_nobody_and_only_its_owner_and_admins_hear_why(
        self, boss: Staff, databases: Databases, resources: Resources, api: httpx.AsyncClient, settings: Settings
    ) -> None:
        account = await make_account(databases)
        finding = Finding(BreakKind.ENTRIES_MISSING, account.wallet.id, {"seq": 1}, {"seq": 2}, account.wallet.id)
        one = await report(finding, resources.ledger, utc_now())
        path = f"/wallets/{account.wallet.id}/close"
        for asker in (boss, Staff(api, account.user, settings)):
            assert refusal(await asker.post(path, reason=_WHY)) == (409, "wallet_books_disagree")
        stranger = await Staff.hire(api, databases, settings)
        assert refusal(await stranger.post(path, reason=_WHY)) == (404, "not_found")
        await boss.post(f"/admin/breaks/{one.id}/explain", reason=_WHY)
        assert (await boss.post(path, reason=_WHY)).json()["status"] == "closed"

    async def test_is_not_shut_for_what_the_bank_says(
        self, boss: Staff, databases: Databases, resources: Resources
    ) -> None:
        wallet = await make_funded_wallet(databases)
        finding = Finding(BreakKind.MISSING_THERE, wallet.id, {}, {}, wallet.id)
        await report(finding, resources.ledger, utc_now())
        await boss.post(f"/wallets/{wallet.id}/freeze", reason=_WHY)
        assert (await boss.post(f"/wallets/{wallet.id}/unfreeze", reason=_WHY)).json()["status"] == "active"
