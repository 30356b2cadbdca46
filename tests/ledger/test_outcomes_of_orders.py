"""What commands on deposits and withdrawals come to, to the last field (see journal.py)."""

from datetime import timedelta
from typing import Any

from service.domain.operations import BankCall, Operation, OperationStatus, Proposal, Release, Verdict
from service.domain.outbox import OutboxTopic, outbox_row
from service.domain.wallets import Freeze, WalletStatus
from service.ledger.approvals import CancelPayment, ConfirmPayment, LapsePayment
from service.ledger.blocked_withdrawals import CancelWithdrawal, ReleaseWithdrawal
from service.ledger.orders import Fail, FlagForReview, NoteAttempt, RequestDeposit, RequestWithdrawal, Settle
from service.ledger.reviews import AskAgain, DecideReview
from tests.ledger.journal import ACCOUNT, DETAILS, Journal, challenge
from tests.records import at


class Orders(Journal):
    """The journal with the commands of this story."""

    def deposit(self, amount: int = 500, user: str = "usr_asha", **overrides: Any) -> RequestDeposit:
        fields = self.by(user, key=overrides.pop("key", None)) | ACCOUNT | DETAILS
        fields |= {"operation_id": f"dep_{self.number}", "amount": amount, "currency": "INR"}
        return RequestDeposit(**(fields | overrides))

    def withdrawal(self, amount: int = 200, **overrides: Any) -> RequestWithdrawal:
        fields = self.by("usr_asha", key=overrides.pop("key", None)) | ACCOUNT | DETAILS
        fields |= {"operation_id": f"wdr_{self.number}", "amount": amount, "currency": "INR"}
        return RequestWithdrawal(**(fields | {"entry_id": self.entry()} | overrides))

    def about(self, operation_id: str) -> dict[str, Any]:
        return self.common() | {"operation_id": operation_id, "wallet_id": "wal_asha"}

    def asking(self, operation_id: str, **overrides: Any) -> NoteAttempt:
        return NoteAttempt(**(self.about(operation_id) | overrides))

    def settling(self, operation_id: str, **overrides: Any) -> Settle:
        operation: Operation = self.made(operation_id)
        said = {"amount": operation.amount, "currency": "INR", "bank_reference": "bnk_1"}
        return Settle(**(self.about(operation_id) | {"entry_id": self.entry()} | said | overrides))

    def failing(self, operation_id: str, **overrides: Any) -> Fail:
        operation: Operation = self.made(operation_id)
        said = {
            "amount": operation.amount,
            "currency": "INR",
            "bank_reference": "bnk_1",
            "failure_code": "declined",
            "failure_message": "Declined",
        }
        return Fail(**(self.about(operation_id) | {"entry_id": self.entry()} | said | overrides))

    def flagging(self, operation_id: str, **overrides: Any) -> FlagForReview:
        why = {"failure_code": "no_answer", "failure_message": "The bank said nothing"}
        return FlagForReview(**(self.about(operation_id) | why | overrides))

    def reviewing(self, operation_id: str, verdict: Verdict, user: str = "usr_admin", **overrides: Any) -> DecideReview:
        fields = self.audited(user) | {"operation_id": operation_id, "wallet_id": "wal_asha", "verdict": verdict}
        return DecideReview(**(fields | {"entry_id": self.entry()} | overrides))

    def asking_again(self, operation_id: str, user: str = "usr_admin") -> AskAgain:
        return AskAgain(**self.audited(user), operation_id=operation_id, wallet_id="wal_asha")

    def releasing(self, operation_id: str, *, is_forced: bool = False, user: str = "usr_admin") -> ReleaseWithdrawal:
        fields = self.audited(user) | {"operation_id": operation_id, "wallet_id": "wal_asha"}
        return ReleaseWithdrawal(**fields, is_forced=is_forced)

    def canceling(self, operation_id: str, user: str = "usr_admin") -> CancelWithdrawal:
        fields = self.audited(user) | {"operation_id": operation_id, "wallet_id": "wal_asha"}
        return CancelWithdrawal(**fields, entry_id=self.entry())

    def own(self, operation_id: str, user: str = "usr_asha") -> dict[str, Any]:
        fields = self.by(user) | {"payment_id": operation_id, "wallet_id": "wal_asha", "to_wallet_id": None}
        return fields | {"release_entry_id": self.entry("_back")}

    def confirming(self, operation_id: str, code: str = "right", **overrides: Any) -> ConfirmPayment:
        entries = self.own(operation_id, overrides.pop("user", "usr_asha"))
        fields = {"code_hash": code, "is_verified": False, "out_entry_id": "ent_out", "in_entry_id": "ent_in"}
        return ConfirmPayment(**(entries | fields | overrides))

    def taking_back(self, operation_id: str, user: str = "usr_asha") -> CancelPayment:
        return CancelPayment(**self.own(operation_id, user))

    def lapsing(self, operation_id: str, **overrides: Any) -> LapsePayment:
        fields = self.common() | {"payment_id": operation_id, "wallet_id": "wal_asha", "to_wallet_id": None}
        return LapsePayment(**(fields | {"release_entry_id": self.entry("_back")} | overrides))

    # --- whole beginnings

    def fund(self, amount: int = 5_000) -> str:
        request = self.deposit(amount)
        self.begin(request)
        self.begin(self.asking(request.operation_id))
        self.begin(self.settling(request.operation_id))
        return request.operation_id

    def ask_for(self, amount: int = 200, **overrides: Any) -> str:
        request = self.withdrawal(amount, **overrides)
        self.begin(request)
        return request.operation_id


def test_deposits() -> None:
    journal = Orders()
    deposit = journal.deposit(500)
    journal.say(deposit)
    paid = deposit.operation_id
    journal.say(journal.asking(paid))
    journal.say(journal.settling(paid))
    journal.say(journal.settling(paid), why="said again")
    journal.say(journal.settling(paid, bank_reference=None), why="said again without its reference")
    journal.say(journal.settling(paid, bank_reference="bnk_2"), why="another order's")
    journal.say(journal.settling(paid, amount=501), why="another amount than the one that came")
    journal.say(journal.failing(paid), why="an end is final")
    refused = journal.deposit(30)
    journal.say(refused)
    journal.say(journal.settling(refused.operation_id), why="the bank never got it")
    journal.say(journal.failing(refused.operation_id), why="the bank never got it")
    journal.say(journal.asking(refused.operation_id, call=BankCall.FIND), why="looking for it is no submission")
    journal.say(journal.failing(refused.operation_id), why="the bank still never got it")
    journal.say(journal.asking(refused.operation_id, expected_by=at(900), last_outcome="accepted"))
    journal.say(journal.asking(refused.operation_id, expected_by=at(901), last_outcome="accepted"))
    journal.say(journal.failing(refused.operation_id))
    journal.say(journal.failing(refused.operation_id), why="said again")
    journal.say(journal.failing(refused.operation_id, amount=None, currency=None), why="said again, of no amount")
    journal.say(journal.failing(refused.operation_id, amount=31), why="of another amount")
    journal.say(journal.settling(refused.operation_id), why="an end is final")
    journal.say(journal.asking(refused.operation_id), why="nothing is asked about what has ended")
    journal.say(journal.flagging(refused.operation_id), why="nor looked into")
    journal.compare("deposits")


def test_refused_orders() -> None:
    journal = Orders()
    journal.fund(500)
    journal.say(journal.deposit(currency="JPY"), why="no wallet in it")
    journal.say(journal.withdrawal(currency="JPY"), why="no wallet in it")
    journal.say(journal.deposit(user="usr_gone"), why="nobody who may act")
    journal.say(journal.deposit(token_version=6), why="with an old token")
    journal.say(journal.deposit(token_version=None), why="without a token, as in the seed")
    journal.say(journal.deposit(2**53 - 1 - 500), why="it just fits")
    journal.say(journal.deposit(2**53 - 500), why="it does not fit")
    journal.say(journal.withdrawal(501), why="more than there is")
    journal.say(journal.deposit(5, key="twice"), journal.deposit(5, key="twice"), why="one key twice in a batch")
    journal.change("wal_asha", status=WalletStatus.FROZEN, freeze=Freeze.IN)
    journal.say(journal.deposit(), why="frozen in")
    journal.say(journal.withdrawal(1), why="frozen in lets it out")
    journal.change("wal_asha", freeze=Freeze.OUT)
    journal.say(journal.withdrawal(1), why="frozen out")
    journal.say(journal.deposit(1), why="frozen out lets it in")
    journal.change("wal_asha", status=WalletStatus.ACTIVE, freeze=None, owed=5, debts=("rtn_0",))
    journal.say(journal.withdrawal(1), why="it owes")
    journal.change("wal_asha", status=WalletStatus.CLOSED, owed=0, debts=())
    journal.say(journal.withdrawal(1), why="closed")
    journal.say(journal.deposit(1), why="closed")
    journal.compare("refused_orders")


def test_money_that_is_not_dealt_in() -> None:
    journal = Orders()
    journal.fund()
    journal.books.policy = journal.books.policy._replace(currencies=frozenset({"USD", "EUR"}))
    journal.say(journal.deposit(1), why="INR is not dealt in any more")
    journal.say(journal.withdrawal(1), why="what is there may always leave")
    journal.compare("money_not_dealt_in")


def test_limits_of_withdrawals() -> None:
    journal = Orders()
    journal.fund(5_000)
    journal.fund(5_000)
    journal.say(journal.withdrawal(5_001), why="above that of one")
    first = journal.ask_for(4_000)
    journal.say(journal.withdrawal(2_001), why="above that of the day")
    journal.ask_for(2_000)
    journal.say(journal.taking_back(first), why="what comes to nothing gives its share back")
    journal.say(journal.withdrawal(4_001), why="not more than its share")
    journal.ask_for(4_000)
    journal.compare("limits_of_withdrawals")


def test_withdrawals() -> None:
    journal = Orders()
    journal.fund()
    withdrawal = journal.withdrawal()
    journal.say(withdrawal)
    paid = withdrawal.operation_id
    journal.say(journal.asking(paid, expected_by=at(500), in_flight=timedelta(minutes=2)))
    journal.say(journal.settling(paid))
    refused = journal.ask_for(300)
    journal.say(journal.asking(refused))
    first_at = journal.made(refused).updated_at
    journal.say(journal.asking(refused))
    journal.say(journal.asking(refused, last_outcome="rejected: busy", answered_at=first_at), why="of the first one")
    journal.say(journal.failing(refused, in_flight=timedelta(minutes=5)), why="another order is under way")
    journal.say(journal.failing(refused, in_flight=timedelta(minutes=1)), why="it is under way no longer")
    wrong = journal.ask_for(50)
    journal.say(journal.asking(wrong))
    journal.say(journal.failing(wrong, amount=51), why="another amount is for a person")
    journal.say(journal.failing(wrong, amount=None, currency=None), why="the bank's late word ends it")
    foreign = journal.ask_for(60)
    journal.say(journal.asking(foreign))
    journal.say(journal.settling(foreign, currency="USD"), why="another currency is for a person")
    journal.say(journal.settling(foreign), why="the bank's late word ends it")
    returned = journal.made(paid)._replace(returned_at=at(60))
    journal.put(returned)
    journal.say(journal.settling(paid, received_at=at(61)), why="settled once more after its return")
    journal.say(journal.settling(paid, received_at=at(60)), why="from before the return")
    journal.compare("withdrawals")


def test_codes_for_withdrawals() -> None:
    journal = Orders()
    journal.fund()
    withdrawal = journal.withdrawal(1_100, challenge=challenge(60))
    journal.say(withdrawal)
    waiting = withdrawal.operation_id
    journal.say(journal.asking(waiting), why="the bank does not hear of it before")
    journal.say(journal.confirming(waiting, "wrong"), why="a wrong code")
    journal.say(journal.confirming(waiting, user="usr_ravi"), why="somebody else's")
    journal.say(journal.lapsing(waiting), why="before its time")
    journal.say(journal.confirming(waiting))
    journal.say(journal.confirming(waiting), why="once only")
    journal.say(journal.lapsing(waiting), why="what was answered loses its reminder")
    journal.say(journal.taking_back(waiting), why="before the bank has heard of it")
    verified = journal.ask_for(1_100, challenge=challenge(60))
    journal.say(journal.confirming(verified, "", is_verified=True), why="by a second factor")
    journal.say(journal.asking(verified))
    journal.say(journal.taking_back(verified), why="the bank may have it")
    tried = journal.ask_for(70, challenge=challenge(60, tries_left=1))
    journal.say(journal.confirming(tried, "wrong"), why="the last try")
    late = journal.ask_for(80, challenge=challenge(journal.number + 2))
    journal.say(journal.confirming(late), why="at its very end")
    unanswered = journal.ask_for(90, challenge=challenge(journal.number + 2))
    journal.say(journal.lapsing(unanswered), why="at its very end")
    given_up = journal.ask_for(95, challenge=challenge(journal.number + 90))
    journal.say(journal.taking_back(given_up, "usr_ravi"), why="somebody else's")
    journal.say(journal.taking_back(given_up))
    frozen = journal.ask_for(96, challenge=challenge(journal.number + 90))
    journal.change("wal_asha", status=WalletStatus.FROZEN, freeze=Freeze.OUT)
    journal.say(journal.confirming(frozen), why="frozen meanwhile")
    journal.put(journal.made(frozen)._replace(status=OperationStatus.PENDING))
    journal.say(journal.confirming(frozen), why="confirmed, whatever else it has")
    journal.say(journal.lapsing(frozen), why="confirmed, whatever else it has")
    deposit = journal.deposit(5)
    journal.begin(deposit)
    journal.say(journal.taking_back(deposit.operation_id), why="a deposit is the bank's to end")
    journal.say(journal.taking_back("dep_none"), why="nothing is there")
    journal.compare("codes_for_withdrawals")


def test_reviews() -> None:
    journal = Orders()
    journal.fund()
    small = journal.ask_for(90)
    journal.say(journal.flagging(small), why="it was never submitted")
    journal.say(journal.flagging(small), why="flagged again")
    journal.say(journal.reviewing(small, Verdict.SETTLE, "usr_gone"), why="nobody who may act")
    journal.say(journal.reviewing(small, Verdict.SETTLE, "usr_asha"), why="one's own")
    journal.say(journal.reviewing(small, Verdict.SETTLE))
    journal.say(journal.reviewing(small, Verdict.FAIL), why="decided already")
    large = journal.ask_for(110)
    journal.say(journal.asking(large))
    journal.say(journal.flagging(large, last_outcome="unreadable"))
    journal.say(journal.reviewing(large, Verdict.FAIL), why="above 100 it takes two")
    journal.say(journal.settling(large, amount=111), why="what was proposed stays so")
    journal.say(journal.reviewing(large, Verdict.FAIL), why="the same admin again")
    journal.say(journal.reviewing(large, Verdict.SETTLE, "usr_boss"), why="another one wants the opposite")
    journal.say(journal.reviewing(large, Verdict.FAIL, "usr_admin"), why="and the first one again")
    journal.say(journal.reviewing(large, Verdict.FAIL, "usr_boss"), why="another one agrees")
    again = journal.ask_for(120)
    journal.say(journal.asking_again(again), why="not in review")
    journal.say(journal.asking(again))
    journal.say(journal.flagging(again))
    journal.put(journal.made(again)._replace(proposal=Proposal(Verdict.FAIL, "usr_boss", "Gone", at(3))))
    journal.say(journal.asking_again(again, "usr_asha"), why="one's own")
    journal.say(journal.asking_again(again))
    row = outbox_row(OutboxTopic.BANK_ORDER, again, "req_old", at(1))
    assert row.id in journal.books.outbox
    journal.say(journal.reviewing("wdr_none", Verdict.FAIL), why="nothing is there")
    paid_in = journal.deposit(40)
    journal.say(paid_in)
    journal.say(journal.flagging(paid_in.operation_id))
    journal.change("wal_asha", status=WalletStatus.CLOSED)
    journal.say(journal.reviewing(paid_in.operation_id, Verdict.SETTLE), why="a closed wallet takes nothing in")
    journal.change("wal_asha", status=WalletStatus.ACTIVE)
    journal.say(journal.reviewing(paid_in.operation_id, Verdict.SETTLE))
    other = journal.deposit(45)
    journal.say(other)
    journal.say(journal.flagging(other.operation_id))
    journal.say(journal.reviewing(other.operation_id, Verdict.FAIL))
    journal.compare("reviews")


def test_deposits_that_cannot_arrive() -> None:
    journal = Orders()
    first, second = journal.deposit(2**53 - 1), journal.deposit(1)
    journal.say(first, second)
    for one in (first, second):
        journal.say(journal.asking(one.operation_id))
    journal.say(journal.settling(first.operation_id), journal.settling(second.operation_id), why="both do not fit")
    third = journal.deposit(1, currency="USD")
    journal.say(third)
    about: dict[str, Any] = {"wallet_id": "wal_asha_usd"}
    journal.say(journal.asking(third.operation_id, **about))
    journal.change("wal_asha_usd", status=WalletStatus.CLOSED)
    journal.say(journal.settling(third.operation_id, currency="USD", **about), why="its wallet is closed")
    journal.say(journal.failing(third.operation_id, currency="USD", **about), why="the bank's late word")
    journal.compare("deposits_that_cannot_arrive")


def test_blocked_withdrawals() -> None:
    journal = Orders()
    journal.fund()
    names = [journal.ask_for(10 + number) for number in range(6)]
    journal.change("wal_asha", status=WalletStatus.FROZEN, freeze=Freeze.OUT, freeze_event_id="aud_freeze")
    journal.say(journal.asking(names[0], call=BankCall.FIND), why="looking is never blocked")
    journal.say(journal.asking(names[0], in_flight=timedelta(minutes=2)), why="frozen")
    journal.say(journal.flagging(names[0]), why="with a person already")
    journal.say(journal.releasing(names[0]), why="still frozen")
    journal.say(journal.releasing(names[0], user="usr_asha"), why="one's own")
    journal.say(journal.releasing(names[0], user="usr_gone"), why="nobody who may act")
    journal.say(journal.releasing("wdr_none"), why="nothing is there")
    journal.say(journal.releasing(names[0], is_forced=True))
    journal.say(journal.releasing(names[0]), why="not blocked any more")
    journal.say(journal.asking(names[0], expected_by=at(700)), why="its release covers the freeze")
    journal.say(journal.asking(names[1]))
    journal.say(journal.taking_back(names[1]), why="never submitted, so its owner may")
    journal.say(journal.asking(names[2]))
    journal.say(journal.canceling(names[2], "usr_asha"), why="one's own")
    journal.say(journal.canceling(names[2]))
    journal.say(journal.canceling(names[2]), why="canceled already")
    del journal.books.users["usr_asha"]
    journal.say(journal.asking(names[3]), why="deactivated is told first")
    journal.say(journal.releasing(names[3], is_forced=True), why="despite both")
    journal.change("wal_asha", freeze_event_id="aud_later")
    journal.say(journal.asking(names[3]), why="a later freeze is not covered")
    journal.change("wal_asha", status=WalletStatus.ACTIVE, freeze=None, freeze_event_id=None)
    journal.say(journal.asking(names[4]), why="deactivated")
    journal.say(journal.releasing(names[4]), why="still deactivated")
    journal.books.users["usr_asha"] = 7
    journal.say(journal.releasing(names[4]), why="nothing stands against it")
    journal.change("wal_asha", owed=1, debts=("rtn_0",))
    journal.say(journal.asking(names[4]), why="it owes")
    journal.say(journal.releasing(names[4], is_forced=True), why="not while it owes")
    journal.change("wal_asha", owed=0, debts=())
    journal.say(journal.asking(names[5], expected_by=at(800)))
    journal.change("wal_asha", status=WalletStatus.FROZEN, freeze=Freeze.OUT, freeze_event_id="aud_out")
    journal.say(journal.asking(names[5], in_flight=timedelta(0), last_outcome="not found"), why="the bank has lost it")
    journal.change("wal_asha", freeze=Freeze.IN)
    journal.say(journal.releasing(names[5]), why="it is due anew")
    journal.say(journal.taking_back(names[5]), why="it was submitted once")
    del journal.books.users["usr_asha"]
    journal.say(journal.asking(names[5], in_flight=timedelta(0)), why="deactivated, and frozen in")
    journal.say(journal.releasing(names[5], is_forced=True), why="despite the one, and no freeze")
    journal.change("wal_asha", freeze=Freeze.OUT)
    journal.say(journal.asking(names[5], in_flight=timedelta(0)))
    journal.say(journal.canceling(names[5]))
    journal.say(journal.failing(names[5]), why="canceled after it was submitted is failed")
    journal.say(journal.settling(names[5]), why="and paid is a contradiction")
    journal.say(journal.failing(names[2]), why="the bank never got the other one")
    journal.compare("blocked_withdrawals")


def test_releases_and_later_deactivations() -> None:
    journal = Orders()
    journal.fund()
    name = journal.ask_for(10)
    version = journal.books.users.pop("usr_asha")
    journal.say(journal.asking(name), why="deactivated by an earlier version")
    journal.say(journal.releasing(name, is_forced=True), why="despite that")
    journal.books.deactivations["usr_asha"] = "aud_gone"
    journal.say(journal.asking(name), why="deactivated anew")
    journal.say(journal.releasing(name, is_forced=True), why="despite that too")
    journal.books.deactivations["usr_asha"] = "aud_gone_again"
    journal.say(journal.asking(name), why="and once more")
    journal.say(journal.releasing(name, is_forced=True), why="despite the last one")
    journal.say(journal.asking(name, expected_by=at(800)), why="its release covers the deactivation")
    journal.books.users["usr_asha"] = version
    journal.compare("releases_and_later_deactivations")


def test_what_may_be_under_way_is_not_blocked() -> None:
    journal = Orders()
    journal.fund()
    sent, accepted, released = journal.ask_for(10), journal.ask_for(11), journal.ask_for(12)
    journal.say(journal.asking(sent))
    journal.say(journal.asking(accepted, last_outcome="accepted"))
    journal.say(journal.asking(accepted, call=BankCall.FIND, last_outcome="accepted"))
    release = Release("usr_admin", "Spoke to her", at(5), despite_freeze=True, despite_deactivation=False)
    journal.put(journal.made(released)._replace(release=release))
    journal.change("wal_asha", status=WalletStatus.FROZEN, freeze=Freeze.BOTH)
    journal.say(journal.asking(sent), why="for ever, unless it is said how long")
    journal.say(journal.asking(sent, in_flight=timedelta(minutes=7)), why="sent a few minutes ago")
    journal.say(journal.asking(sent, in_flight=timedelta(minutes=1), last_outcome="not found"))
    journal.say(journal.asking(accepted, in_flight=timedelta(0)), why="the bank had it once")
    journal.say(journal.asking(released), why="an earlier version froze it")
    journal.say(journal.settling(sent), why="the bank's late word ends a blocked one")
    assert journal.made(sent).status is OperationStatus.SUCCESS
    journal.compare("under_way")


def test_orders_whose_answers_have_expired() -> None:
    journal = Orders()
    journal.fund(500)
    paid_in, paid_out = journal.deposit(5, key="in"), journal.withdrawal(6, key="out")
    journal.begin(paid_in, paid_out)
    journal.begin(journal.asking(paid_in.operation_id))
    journal.begin(journal.failing(paid_in.operation_id))
    journal.forget_answers()
    journal.say(journal.deposit(5, key="in"), why="it has failed meanwhile")
    journal.say(journal.withdrawal(6, key="out"), why="it is still open")
    journal.compare("orders_whose_answers_have_expired")


def test_orders_of_nobody() -> None:
    journal = Orders()
    journal.fund()
    known = journal.ask_for(10)
    operation = journal.made(known)
    del journal.books.records[known]
    journal.put(operation._replace(id="wdr_else"))
    journal.say(journal.asking(known), why="nothing is there")
    journal.say(journal.canceling(known), why="nothing is there")
    journal.say(journal.lapsing(known), why="nothing is there")
    journal.compare("orders_of_nobody")
