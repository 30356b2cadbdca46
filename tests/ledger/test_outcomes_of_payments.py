"""What commands on transfers, holds, adjustments, reversals and conversions come to, to the last field (journal.py)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from service.domain.adjustments import AdjustmentType
from service.domain.limits import Limits
from service.domain.wallets import Freeze, Wallet, WalletStatus
from service.ledger.adjustments import ApproveAdjustment, RejectAdjustment, RequestAdjustment
from service.ledger.approvals import CancelPayment, ConfirmPayment, LapsePayment
from service.ledger.conversions import ConvertMoney
from service.ledger.holds import CaptureHold, ExpireHold, ReleaseHold, RequestHold
from service.ledger.reversals import ReverseOriginal, way_back
from service.ledger.transfers import RequestTransfer, TransferBatch
from tests.ledger.journal import DETAILS, Journal, challenge
from tests.records import at, build_quote

_CREDIT, _DEBIT = AdjustmentType.CREDIT, AdjustmentType.DEBIT
_NOWHERE = {"from_wallet_id": None, "to_wallet_id": None, "currency": "INR"}


class Payments(Journal):
    """The journal with the commands of this story, and 1,000 in asha's wallet."""

    def __init__(self, amount: int = 1_000) -> None:
        super().__init__()
        self.fund("wal_asha", amount)

    def fund(self, wallet_id: str, amount: int) -> None:
        wallet = self.wallet(wallet_id)
        self.begin(self.adjusting(_CREDIT, amount, wallet_id, currency=wallet.currency, user="usr_shop"))

    # --- transfers

    def transfer(self, amount: int = 100, **overrides: Any) -> RequestTransfer:
        fields = self.by(overrides.pop("user", "usr_asha"), key=overrides.pop("key", None)) | DETAILS
        fields |= {
            "transfer_id": f"trf_{self.number}",
            "wallet_id": "wal_asha",
            "to_wallet_id": "wal_ravi",
            "to_user_id": None,
            "amount": amount,
            "currency": "INR",
            "out_entry_id": self.entry("_out"),
            "in_entry_id": self.entry("_in"),
        }
        return RequestTransfer(**(fields | overrides))

    def batch(self, *parts: RequestTransfer, whole: bool, key: str | None = None, **overrides: Any) -> TransferBatch:
        fields = self.by("usr_asha", key=key)
        del fields["user_id"], fields["token_version"]
        own = tuple(replace(part, claim=None, batch_id=f"tbt_{self.number}") for part in parts)
        fields |= {"parts": own, "is_all_or_nothing": whole, "batch_id": f"tbt_{self.number}"}
        return TransferBatch(**(fields | overrides))

    def _payment(self, transfer_id: str, recipient: str | None) -> dict[str, Any]:
        named = {"payment_id": transfer_id, "wallet_id": "wal_asha", "to_wallet_id": recipient}
        return named | {"release_entry_id": self.entry("_back")}

    def confirming(self, transfer_id: str, **overrides: Any) -> ConfirmPayment:
        fields = self.by("usr_asha") | self._payment(transfer_id, "wal_ravi")
        fields |= {"code_hash": "right", "is_verified": False}
        fields |= {"out_entry_id": self.entry("_out"), "in_entry_id": self.entry("_in")}
        return ConfirmPayment(**(fields | overrides))

    def taking_back(self, transfer_id: str) -> CancelPayment:
        return CancelPayment(**self.by("usr_asha"), **self._payment(transfer_id, "wal_ravi"))

    def lapsing(self, transfer_id: str) -> LapsePayment:
        return LapsePayment(**self.common(), **self._payment(transfer_id, "wal_ravi"))

    # --- holds

    def hold(self, amount: int = 100, **overrides: Any) -> RequestHold:
        fields = self.by("usr_asha", key=overrides.pop("key", None)) | DETAILS
        fields |= {
            "hold_id": f"hld_{self.number}",
            "wallet_id": "wal_asha",
            "to_wallet_id": "wal_ravi",
            "amount": amount,
            "currency": "INR",
            "lifetime": timedelta(minutes=60),
            "entry_id": self.entry(),
        }
        return RequestHold(**(fields | overrides))

    def set_aside(self, amount: int = 100, **overrides: Any) -> str:
        hold = self.hold(amount, **overrides)
        self.begin(hold)
        return hold.hold_id

    def _on_hold(self, hold_id: str, user: str) -> dict[str, Any]:
        fields = self.audited(user) | {"hold_id": hold_id, "wallet_id": "wal_asha"}
        return fields | {"acts_for_house": user in ("usr_shop", "usr_admin"), "release_entry_id": self.entry("_back")}

    def capturing(self, hold_id: str, user: str = "usr_ravi", **overrides: Any) -> CaptureHold:
        fields = self._on_hold(hold_id, user) | {"named_wallet_id": "wal_ravi", "to_wallet_id": None, "amount": None}
        fields |= {"out_entry_id": self.entry("_out"), "in_entry_id": self.entry("_in")}
        fields |= {"capture_to": frozenset(self.books.wallets)}
        return CaptureHold(**(fields | overrides))

    def releasing(self, hold_id: str, user: str = "usr_ravi", **overrides: Any) -> ReleaseHold:
        return ReleaseHold(**(self._on_hold(hold_id, user) | overrides))

    def expiring(self, hold_id: str, **overrides: Any) -> ExpireHold:
        fields = self.common() | {"hold_id": hold_id, "wallet_id": "wal_asha"}
        return ExpireHold(**(fields | {"release_entry_id": self.entry("_back")} | overrides))

    # --- the house

    def adjusting(self, kind: AdjustmentType, amount: int, wallet_id: str = "wal_asha", **overrides: Any) -> Any:
        user = overrides.pop("user", "usr_admin")
        fields = self.audited(user, key=overrides.pop("key", None)) | DETAILS
        fields |= {
            "adjustment_id": f"adj_{self.number}",
            "entry_id": self.entry(),
            "type": kind,
            "wallet_id": wallet_id,
            "amount": amount,
            "currency": "INR",
            "is_admin": user != "usr_shop",
        }
        return RequestAdjustment(**(fields | overrides))

    def approving(self, adjustment_id: str, user: str = "usr_boss", wallet_id: str = "wal_asha") -> ApproveAdjustment:
        fields = self.audited(user) | {"adjustment_id": adjustment_id, "wallet_id": wallet_id}
        return ApproveAdjustment(**fields, entry_id=self.entry())

    def rejecting(self, adjustment_id: str, user: str = "usr_admin") -> RejectAdjustment:
        return RejectAdjustment(**self.audited(user), adjustment_id=adjustment_id, wallet_id="wal_asha")

    def reversing(self, original_id: str, user: str = "usr_admin", **overrides: Any) -> ReverseOriginal:
        original = self.books.records.get(original_id)
        way = way_back(original)._asdict() if original is not None else _NOWHERE  # type: ignore[arg-type]  # a transfer or an adjustment
        fields = self.audited(user) | way
        fields |= {
            "reversal_id": f"rev_{self.number}",
            "original_id": original_id,
            "is_forced": False,
            "out_entry_id": self.entry("_out"),
            "in_entry_id": self.entry("_in"),
            "house_entry_id": self.entry("_house"),
        }
        return ReverseOriginal(**(fields | overrides))

    def converting(self, quote_id: str, user: str = "usr_asha", **overrides: Any) -> ConvertMoney:
        fields = self.by(user) | DETAILS
        fields |= {
            "conversion_id": f"cnv_{self.number}",
            "quote_id": quote_id,
            "currencies": ("INR", "USD"),
            "out_entry_id": self.entry("_out"),
            "in_entry_id": self.entry("_in"),
        }
        return ConvertMoney(**(fields | overrides))


def _shut(journal: Journal, wallet_id: str, freeze: Freeze) -> Wallet:
    journal.change(wallet_id, status=WalletStatus.FROZEN, freeze=freeze)
    return journal.wallet(wallet_id)


def _open(journal: Journal, wallet_id: str) -> None:
    journal.change(wallet_id, status=WalletStatus.ACTIVE, freeze=None, owed=0, debts=())


def test_transfers() -> None:
    journal = Payments()
    journal.say(journal.transfer())
    journal.say(journal.transfer(to_wallet_id=None, to_user_id="usr_ravi"), why="to a person")
    journal.say(journal.transfer(49), why="too little to earn anything")
    journal.change("wal_ravi", updated_at=at(journal.number + 1) + timedelta(seconds=3))
    journal.say(journal.transfer(5), why="its recipient's clock is a little ahead")
    journal.change("wal_ravi", updated_at=at(journal.number + 40))
    journal.say(journal.transfer(6), why="its recipient's clock is far ahead")
    journal.say(journal.transfer(7, now=at(1)), why="it comes late")
    journal.compare("transfers")


def test_refused_transfers() -> None:
    journal = Payments()
    journal.say(journal.transfer(user="usr_gone"), why="nobody who may act")
    journal.say(journal.transfer(token_version=6), why="with an old token")
    journal.say(journal.transfer(user="usr_ravi"), why="out of another's wallet")
    journal.say(journal.transfer(wallet_id="wal_none"), why="out of no wallet")
    journal.say(journal.transfer(currency="USD"), why="in another currency than its wallet's")
    journal.say(journal.transfer(to_wallet_id="wal_asha"), why="to itself")
    journal.say(journal.transfer(to_wallet_id=None, to_user_id="usr_asha"), why="to oneself")
    journal.say(journal.transfer(1_001), why="more than there is")
    journal.say(journal.transfer(to_wallet_id="wal_none"), why="to no wallet")
    journal.say(journal.transfer(to_wallet_id=None), why="to nobody")
    journal.say(journal.transfer(to_wallet_id="wal_ravi_usd"), why="to a wallet in another currency")
    for freeze in Freeze:
        _shut(journal, "wal_ravi", freeze)
        journal.say(journal.transfer(1), why=f"its recipient is frozen {freeze}")
    journal.change("wal_ravi", status=WalletStatus.CLOSED)
    journal.say(journal.transfer(1), why="its recipient is closed")
    _open(journal, "wal_ravi")
    journal.change("wal_ravi", held=2**53 - 1 - journal.wallet("wal_ravi").available - 99)
    journal.say(journal.transfer(100), why="its recipient has too much")
    journal.compare("refused_transfers")


def test_limits_of_ones_own() -> None:
    journal = Payments()
    journal.change("wal_asha", limits=Limits(per_transaction=30, per_month=50))
    journal.say(journal.transfer(31), why="above one's own")
    journal.say(journal.transfer(30))
    journal.say(journal.transfer(21), why="above that of the month")
    journal.change("wal_asha", limits=Limits(per_transaction=0, per_day=0))
    journal.say(journal.transfer(600), why="0 is no limit")
    journal.compare("limits_of_ones_own")


def test_batches_of_transfers() -> None:
    journal = Payments()
    good, bad, gone = journal.transfer(10), journal.transfer(2_000), journal.transfer(11, user="usr_gone")
    other = journal.transfer(12)
    journal.say(journal.batch(good, other, whole=True))
    journal.say(journal.batch(journal.transfer(13), bad, whole=True), why="one refusal is that of all")
    journal.say(journal.batch(journal.transfer(14), bad, journal.transfer(15), whole=False), why="each for itself")
    journal.say(journal.batch(journal.transfer(16), gone, whole=False), why="a refusal that is not kept is that of all")
    journal.say(journal.batch(journal.transfer(17), gone, whole=True), why="and under its own name")
    journal.say(journal.batch(whole=True), why="of nothing")
    journal.say(journal.batch(journal.transfer(18), whole=True, claim=None), why="without a key")
    journal.compare("batches_of_transfers")


def test_codes_for_transfers() -> None:
    journal = Payments()
    first, second, third = (journal.transfer(20 + number, challenge=challenge(60)) for number in range(3))
    journal.say(first)
    journal.say(second, third)
    journal.say(journal.confirming(first.transfer_id))
    _shut(journal, "wal_ravi", Freeze.IN)
    journal.say(journal.confirming(second.transfer_id), why="its recipient is frozen")
    _open(journal, "wal_ravi")
    journal.change("wal_ravi", updated_at=at(journal.number + 1) + timedelta(seconds=3))
    journal.say(journal.confirming(second.transfer_id), why="its recipient's clock is a little ahead")
    journal.say(journal.taking_back(third.transfer_id))
    journal.say(journal.lapsing(third.transfer_id), why="canceled already")
    earning = journal.transfer(60, challenge=challenge(60))
    journal.begin(earning)
    journal.change("wal_asha", updated_at=at(journal.number + 9))
    journal.say(journal.confirming(earning.transfer_id), why="its sender's clock was ahead")
    lapsed = journal.transfer(30, challenge=challenge(journal.number + 2))
    journal.begin(lapsed)
    journal.number += 10
    journal.say(journal.lapsing(lapsed.transfer_id))
    journal.compare("codes_for_transfers")


def test_holds() -> None:
    journal = Payments()
    first, house = journal.hold(), journal.hold(60, to_wallet_id=None)
    journal.say(first)
    journal.say(house, why="for the house")
    journal.say(journal.capturing(first.hold_id))
    journal.say(journal.capturing(house.hold_id, "usr_shop", named_wallet_id=None, amount=40), why="a part of it")
    named = journal.set_aside(70, to_wallet_id=None)
    later = journal.capturing(named, "usr_shop", named_wallet_id=None, to_wallet_id="wal_ravi", amount=50)
    journal.say(later, why="for somebody who is named now")
    journal.say(journal.capturing(journal.set_aside(30), "usr_asha"), why="by its payer")
    journal.say(journal.releasing(journal.set_aside(31)), why="by its payee")
    journal.say(journal.releasing(journal.set_aside(32), "usr_shop"), why="by the house")
    journal.say(journal.releasing(journal.set_aside(33, to_wallet_id=None), "usr_asha"), why="by its payer")
    journal.compare("holds")


def test_the_end_of_holds() -> None:
    journal = Payments()
    early = journal.set_aside(10, lifetime=timedelta(minutes=2))
    journal.say(journal.expiring(early), why="before its time")
    journal.say(journal.expiring(early), why="at its very end")
    journal.say(journal.expiring(early), why="over already")
    journal.say(journal.capturing(early), why="over already")
    late = journal.set_aside(11, lifetime=timedelta(minutes=1))
    journal.say(journal.capturing(late), why="nobody has come to say that it is over")
    gone = journal.set_aside(12, lifetime=timedelta(minutes=1))
    journal.say(journal.releasing(gone, "usr_shop"), why="nobody has come to say that it is over")
    done = journal.set_aside(13)
    journal.begin(journal.capturing(done))
    journal.say(journal.capturing(done), why="once only")
    journal.say(journal.releasing(done), why="once only")
    journal.say(journal.expiring(done), why="only its reminder goes")
    journal.compare("end_of_holds")


def test_refused_holds() -> None:
    journal = Payments(2_000)
    journal.say(journal.hold(user_id="usr_gone"), why="nobody who may act")
    journal.say(journal.hold(user_id="usr_ravi"), why="out of another's wallet")
    journal.say(journal.hold(currency="USD"), why="in another currency")
    journal.say(journal.hold(to_wallet_id="wal_asha"), why="for itself")
    journal.say(journal.hold(1_001), why="above what takes a code")
    journal.say(journal.hold(1_000), why="not above it")
    journal.say(journal.hold(1_000, to_wallet_id="wal_none"), why="for nobody")
    journal.say(journal.hold(to_wallet_id="wal_ravi_usd"), why="for a wallet in another currency")
    _shut(journal, "wal_asha", Freeze.OUT)
    journal.say(journal.hold(1), why="frozen")
    _open(journal, "wal_asha")
    hold, free = journal.set_aside(50), journal.set_aside(51, to_wallet_id=None)
    journal.say(journal.capturing(hold, "usr_gone"), why="nobody who may act")
    journal.say(journal.capturing(hold, "usr_boss"), why="neither side, nor the house")
    journal.say(journal.capturing("hld_none"), why="nothing is there")
    journal.say(journal.expiring("hld_none"), why="nothing is there")
    journal.say(journal.capturing(hold, amount=51), why="more than it is")
    journal.say(journal.capturing(hold, to_wallet_id="wal_admin"), why="for somebody else")
    unnamed: dict[str, Any] = {"named_wallet_id": None}
    journal.say(journal.capturing(free, "usr_shop", to_wallet_id="wal_asha", **unnamed), why="for its payer")
    journal.say(journal.capturing(free, "usr_shop", to_wallet_id="wal_ravi_usd", **unnamed), why="in another currency")
    journal.say(journal.releasing(hold, "usr_asha"), why="it is a guarantee")
    journal.say(journal.releasing(hold, "usr_boss"), why="neither side, nor the house")
    _shut(journal, "wal_asha", Freeze.BOTH)
    journal.say(journal.capturing(hold), why="frozen both ways")
    _shut(journal, "wal_asha", Freeze.OUT)
    journal.say(journal.capturing(free, "usr_shop", to_wallet_id="wal_ravi", **unnamed), why="promised to nobody")
    journal.change("wal_asha", owed=5, debts=("rtn_0",))
    journal.say(journal.capturing(hold), why="it owes")
    journal.change("wal_asha", owed=0, debts=(), status=WalletStatus.CLOSED)
    journal.say(journal.capturing(hold), why="closed")
    _shut(journal, "wal_asha", Freeze.OUT)
    journal.say(journal.capturing(free, "usr_shop", **unnamed), why="what was promised before is still paid")
    _shut(journal, "wal_asha", Freeze.IN)
    journal.say(journal.capturing(hold), why="frozen in does not keep it")
    journal.compare("refused_holds")


def test_adjustments() -> None:
    journal = Payments()
    journal.say(journal.adjusting(_CREDIT, 60))
    journal.say(journal.adjusting(_DEBIT, 70))
    journal.say(journal.adjusting(_DEBIT, 71, user="usr_shop"), why="by a service")
    journal.say(journal.adjusting(_CREDIT, 100), why="as much as one may alone")
    large = journal.adjusting(_CREDIT, 101)
    journal.say(large, why="above it another one is asked")
    journal.say(journal.adjusting(_CREDIT, 102, user="usr_shop"), why="a service is asked for no second one")
    journal.say(journal.approving(large.adjustment_id, "usr_admin"), why="the same admin")
    journal.say(journal.approving(large.adjustment_id, "usr_asha"), why="for oneself")
    journal.say(journal.approving(large.adjustment_id, "usr_gone"), why="nobody who may act")
    journal.say(journal.approving("adj_none"), why="nothing is there")
    journal.say(journal.approving(large.adjustment_id))
    journal.say(journal.approving(large.adjustment_id), why="decided already")
    taken = journal.adjusting(_DEBIT, 300)
    journal.say(taken)
    journal.say(journal.rejecting(taken.adjustment_id), why="whoever asked may take it back")
    journal.say(journal.rejecting(taken.adjustment_id), why="decided already")
    own = journal.adjusting(_CREDIT, 5, "wal_admin")
    journal.say(own, why="for oneself, however little")
    journal.say(journal.adjusting(_DEBIT, 5, "wal_admin"), why="one's own money, and there is none")
    debit = journal.adjusting(_DEBIT, 500)
    journal.say(debit)
    journal.change("wal_asha", held=journal.wallet("wal_asha").available - 400, available=400)
    journal.say(journal.approving(debit.adjustment_id), why="it is not there any more")
    journal.compare("adjustments")


def test_refused_adjustments() -> None:
    journal = Payments()
    journal.say(journal.adjusting(_CREDIT, 1, user="usr_gone"), why="nobody who may act")
    journal.say(journal.adjusting(_CREDIT, 1, "wal_none"), why="no wallet")
    journal.say(journal.adjusting(_CREDIT, 1, currency="USD"), why="in another currency")
    journal.say(journal.adjusting(_DEBIT, 1_001), why="more than there is")
    journal.say(journal.adjusting(_CREDIT, 2**53 - 1_000), why="too much")
    for freeze in (Freeze.IN, Freeze.OUT):
        _shut(journal, "wal_asha", freeze)
        for kind in AdjustmentType:
            journal.say(journal.adjusting(kind, 1, user="usr_shop"), why=f"by a service, frozen {freeze}")
            journal.say(journal.adjusting(kind, 1), why=f"by an admin, frozen {freeze}")
    journal.change("wal_asha", status=WalletStatus.CLOSED)
    journal.say(journal.adjusting(_CREDIT, 1), why="closed")
    journal.say(journal.adjusting(_CREDIT, 1, user="usr_shop"), why="closed")
    journal.compare("refused_adjustments")


def test_reversals() -> None:
    journal = Payments()
    paid, spent, large = journal.transfer(100), journal.transfer(90), journal.transfer(300)
    journal.begin(paid, spent, large)
    more, tiny = journal.transfer(150), journal.transfer(3)
    journal.begin(more, tiny)
    journal.say(journal.reversing(more.transfer_id), why="the house bears nothing of it, however much it is")
    journal.say(journal.reversing(paid.transfer_id))
    journal.say(journal.reversing(paid.transfer_id), why="once only")
    journal.change("wal_ravi", held=390 - 30, available=30)
    journal.change("wal_ravi", updated_at=at(journal.number + 1) + timedelta(seconds=3))
    journal.say(journal.reversing(tiny.transfer_id), why="its getter's clock is a little ahead")
    journal.say(journal.reversing(spent.transfer_id), why="it is not all there")
    journal.say(journal.reversing(spent.transfer_id, is_forced=True), why="the house bears the rest")
    journal.say(journal.reversing(large.transfer_id, is_forced=True), why="more than one may give away alone")
    credit, debit, big = journal.adjusting(_CREDIT, 40), journal.adjusting(_DEBIT, 50), journal.adjusting(_DEBIT, 101)
    waiting = journal.adjusting(_CREDIT, 200)
    journal.begin(credit, debit, big, waiting)
    journal.say(journal.reversing(credit.adjustment_id))
    journal.say(journal.reversing(debit.adjustment_id))
    journal.say(journal.reversing(waiting.adjustment_id), why="it has moved nothing")
    journal.begin(journal.approving(big.adjustment_id))
    journal.say(journal.reversing(big.adjustment_id), why="by who had asked for it")
    journal.say(journal.reversing(big.adjustment_id, "usr_boss"), why="by another one")
    journal.say(journal.reversing("trf_none"), why="nothing is there")
    mine = journal.adjusting(_DEBIT, 5)
    journal.begin(mine)
    journal.say(journal.reversing(mine.adjustment_id, "usr_gone"), why="nobody who may act")
    journal.say(journal.reversing(mine.adjustment_id, "usr_asha"), why="to oneself")
    held = journal.wallet("wal_asha").held
    journal.change("wal_asha", held=2**53 - 5 - journal.wallet("wal_asha").available)
    journal.say(journal.reversing(mine.adjustment_id), why="it does not fit")
    journal.change("wal_asha", held=held, status=WalletStatus.CLOSED)
    journal.say(journal.reversing(mine.adjustment_id), why="closed")
    journal.compare("reversals")


def test_conversions() -> None:
    journal = Payments(20_000)
    journal.books.policy = journal.books.policy._replace(limits={})
    names = [f"quo_{number}" for number in range(4)]
    journal.put(*(build_quote(id=name) for name in names))
    journal.say(journal.converting(names[0]))
    journal.say(journal.converting(names[0]), why="once only")
    journal.say(journal.converting(names[1], "usr_ravi"), why="another's quote")
    journal.say(journal.converting(names[1], "usr_gone"), why="nobody who may act")
    journal.say(journal.converting("quo_none"), why="nothing is there")
    journal.put(build_quote(id="quo_ravi", user_id="usr_admin"))
    journal.say(journal.converting("quo_ravi", "usr_admin"), why="no wallet in the other currency")
    journal.put(build_quote(id="quo_back", user_id="usr_admin", from_currency="USD", to_currency="INR"))
    journal.say(journal.converting("quo_back", "usr_admin"), why="no wallet in the one currency")
    journal.put(build_quote(id="quo_dear", amount=10_001))
    journal.say(journal.converting("quo_dear"), why="more than there is")
    _shut(journal, "wal_asha_usd", Freeze.IN)
    journal.say(journal.converting(names[1]), why="the other wallet is frozen")
    journal.change("wal_asha_usd", status=WalletStatus.ACTIVE, freeze=None, held=2**53 - 1 - 120 - 119)
    journal.say(journal.converting(names[1]), why="the other wallet is full")
    journal.books.policy = journal.books.policy._replace(limits=Journal().books.policy.limits)
    journal.say(journal.converting(names[1]), why="above the limit of the wallet that gives")
    journal.books.policy = journal.books.policy._replace(limits={})
    journal.change("wal_asha_usd", held=0, updated_at=at(journal.number + 1) + timedelta(seconds=3))
    journal.say(journal.converting(names[1]), why="the other wallet's clock is a little ahead")
    journal.fund("wal_asha", 10_000)
    journal.change("wal_asha", updated_at=at(journal.number + 1) + timedelta(seconds=4))
    journal.say(journal.converting(names[3]), why="the wallet that gives is a little ahead")
    late = journal.converting(names[2], now=at(40))
    journal.say(late, why="its time is over")
    journal.compare("conversions")


def test_keys_whose_answers_have_expired() -> None:
    """What was made under the key is shown as it stands now, and nothing is made again."""
    journal = Payments()
    transfer = journal.transfer(10, key="transfer")
    coded = journal.transfer(11, key="coded", challenge=challenge(60))
    hold, credit = journal.hold(12, key="hold"), journal.adjusting(_CREDIT, 13, key="credit")
    waiting = journal.adjusting(_CREDIT, 200, key="waiting")
    parts = (journal.transfer(14), journal.transfer(9_000), journal.transfer(15))
    batch = journal.batch(*parts, whole=False, key="batch")
    lonely = journal.batch(journal.transfer(9_000), journal.transfer(16), whole=False, key="lonely")
    journal.begin(transfer, coded, hold, credit, waiting, batch, lonely)
    journal.begin(journal.capturing(hold.hold_id))
    journal.forget_answers()
    again = journal.batch(*(journal.transfer(part.amount) for part in parts), whole=False, key="batch")
    journal.say(journal.transfer(10, key="transfer"))
    journal.say(journal.transfer(11, key="coded", challenge=challenge(61)), why="it still waits")
    journal.say(journal.hold(12, key="hold"), why="it was captured meanwhile")
    journal.say(journal.adjusting(_CREDIT, 13, key="credit"))
    journal.say(journal.adjusting(_CREDIT, 200, key="waiting"), why="it still waits")
    journal.say(again, why="of the refused one nobody knows why any more")
    lonely = journal.batch(journal.transfer(9_000), journal.transfer(16), whole=False, key="lonely")
    journal.say(lonely, why="only the second one was made")
    journal.say(journal.transfer(10, key="transfer"), why="its answer is kept again")
    early = journal.transfer(10, key="transfer")
    assert early.claim is not None
    mistaken = replace(early, claim=early.claim._replace(fingerprint="of another request"))
    journal.say(mistaken, why="another request, while the answer is kept")
    later = journal.hold(17, key="later")
    journal.begin(later)
    journal.forget_answers()
    repeated = journal.hold(17, key="later")
    journal.say(journal.capturing(later.hold_id), repeated, why="it was captured a moment ago")
    other = journal.transfer(10, key="transfer")
    assert other.claim is not None
    reused = replace(other, claim=other.claim._replace(fingerprint="of another request"))
    journal.say(reused, why="another request under the same key")
    journal.compare("keys_whose_answers_have_expired")
