"""What returns, points, vouchers and what becomes of a wallet itself come to, to the last field (see journal.py)."""

from datetime import timedelta
from typing import Any

from service.domain.adjustments import AdjustmentType
from service.domain.incidents import Said, SaidEvent
from service.domain.limits import Limits, Usage
from service.domain.operations import Operation, OperationStatus, OperationType
from service.domain.returns import ReturnStatus, ReturnType, return_id_of
from service.domain.rewards import RewardStatus
from service.domain.sealed import Sealed
from service.domain.wallets import MAX_DEBTS, Freeze, WalletStatus
from service.ledger.adjustments import RequestAdjustment
from service.ledger.breaks import FreezeBrokenWallet
from service.ledger.holds import ReleaseHold, RequestHold
from service.ledger.limits import OverrideLimits
from service.ledger.returns import CollectReturn, NamedHold, TakeReturn
from service.ledger.rewards import EarnPoints
from service.ledger.user_limits import SetTimeZone
from service.ledger.vouchers import CreateVoucher, RedeemVoucher, UpdateVoucher
from service.ledger.wallet_life import CloseWallet, FreezeWallet, ReopenWallet, UnfreezeWallet
from tests.ledger.journal import DETAILS, Journal
from tests.records import (
    at,
    build_incident,
    build_operation,
    build_return,
    build_reward,
    build_transfer,
    build_voucher,
)


class Wallets(Journal):
    """The journal with the commands of this story."""

    def fund(self, wallet_id: str, amount: int) -> None:
        fields = self.audited("usr_shop") | DETAILS
        fields |= {
            "adjustment_id": f"adj_{self.number}",
            "entry_id": self.entry(),
            "type": AdjustmentType.CREDIT,
            "wallet_id": wallet_id,
            "amount": amount,
            "currency": self.wallet(wallet_id).currency,
            "is_admin": False,
        }
        self.begin(RequestAdjustment(**fields))

    def credit(self, amount: int, wallet_id: str = "wal_asha") -> RequestAdjustment:
        """As something that comes in."""
        fields = self.audited("usr_shop") | DETAILS
        fields |= {"adjustment_id": f"adj_{self.number}", "entry_id": self.entry(), "type": AdjustmentType.CREDIT}
        fields |= {"wallet_id": wallet_id, "amount": amount, "is_admin": False}
        return RequestAdjustment(**fields, currency=self.wallet(wallet_id).currency)

    def set_aside(self, amount: int) -> NamedHold:
        fields = self.by("usr_asha") | DETAILS
        fields |= {"hold_id": f"hld_{self.number}", "wallet_id": "wal_asha", "to_wallet_id": "wal_ravi"}
        fields |= {"amount": amount, "currency": "INR", "lifetime": timedelta(days=1), "entry_id": self.entry()}
        self.begin(RequestHold(**fields))
        return NamedHold(f"hld_{self.number}", f"ent_of_{self.number}", "wal_ravi")

    def releasing(self, hold_id: str) -> ReleaseHold:
        fields = self.audited("usr_ravi") | {"hold_id": hold_id, "wallet_id": "wal_asha", "acts_for_house": False}
        return ReleaseHold(**fields, release_entry_id=self.entry("_back"))

    def settled(self, operation_id: str, **overrides: Any) -> Operation:
        """Past the ledger: the bank has carried it out."""
        operation = build_operation(id=operation_id, **overrides)
        self.put(operation)
        return operation

    def returning(self, operation_id: str, *holds: NamedHold, amount: int = 500, **overrides: Any) -> TakeReturn:
        said = Said(SaidEvent.RETURNED, None, amount, "INR", "bnk_back", "AC04", "Account closed", "cb_1")
        fields = self.common() | {"operation_id": operation_id, "wallet_id": "wal_asha", "user_id": "usr_asha"}
        fields |= {
            "said": said,
            "entry_id": self.entry(),
            "incident_id": f"inc_{self.number}",
            "incident_event_id": f"aud_{self.number}_incident",
            "freeze_event_id": f"aud_{self.number}_freeze",
            "holds": holds,
        }
        return TakeReturn(**(fields | overrides))

    def collecting(self, return_id: str, *holds: NamedHold, user: str = "usr_admin", **overrides: Any) -> CollectReturn:
        fields = self.audited(user) | {"return_id": return_id, "wallet_id": "wal_asha", "entry_id": self.entry()}
        return CollectReturn(**(fields | {"holds": holds} | overrides))

    def earning(self, operation_id: str, user: str = "usr_asha", **overrides: Any) -> EarnPoints:
        fields = self.common() | {"operation_id": operation_id, "user_id": user, "entry_id": self.entry()}
        return EarnPoints(**(fields | overrides))

    def redeeming(self, voucher_id: str = "vch_1", user: str = "usr_asha", **overrides: Any) -> RedeemVoucher:
        fields = self.by(user, key=overrides.pop("key", None)) | {"voucher_id": voucher_id}
        fields |= {"redemption_id": f"rdm_{self.number}", "entry_id": self.entry()}
        return RedeemVoucher(**(fields | {"code_sealed": Sealed("00000000", b"code")} | overrides))

    def updating(self, user: str = "usr_boss", *, add_stock: int = 0, **changes: Any) -> UpdateVoucher:
        fields = self.audited(user) | {"voucher_id": changes.pop("voucher_id", "vch_1")}
        return UpdateVoucher(
            **(fields | {"now": changes.pop("now", fields["now"])}), changes=changes, add_stock=add_stock
        )

    def on(self, user: str, wallet_id: str = "wal_asha") -> dict[str, Any]:
        return self.audited(user) | {"wallet_id": wallet_id}

    def freezing(self, freeze: Freeze, user: str = "usr_admin", **overrides: Any) -> FreezeWallet:
        return FreezeWallet(**(self.on(user) | {"freeze": freeze} | overrides))

    def unfreezing(self, user: str = "usr_admin") -> UnfreezeWallet:
        return UnfreezeWallet(**self.on(user))

    def closing(self, user: str = "usr_asha", **overrides: Any) -> CloseWallet:
        return CloseWallet(**(self.on(user) | {"is_admin": user == "usr_admin"} | overrides))

    def reopening(self, user: str = "usr_admin", wallet_id: str = "wal_asha") -> ReopenWallet:
        return ReopenWallet(**self.on(user, wallet_id))

    def zoning(self, zone: str | None, user: str = "usr_asha", **overrides: Any) -> SetTimeZone:
        return SetTimeZone(**(self.audited(user) | {"time_zone": zone} | overrides))

    def limiting(self, limits: Limits | None, user: str = "usr_admin", **overrides: Any) -> OverrideLimits:
        fields = self.audited(user) | {"owner_id": "usr_asha", "currency": "INR", "limits": limits}
        return OverrideLimits(**(fields | overrides))


# Of a withdrawal of 500 at minute 2.
_USAGE = Usage("2026-02-24T12", 1, "2026-02-24", 500, "2026-02", 500, day_since=at(2), month_since=at(2))


def test_returns_of_withdrawals() -> None:
    journal = Wallets()
    for name in ("wdr_a", "wdr_b", "wdr_c"):
        journal.settled(name, type=OperationType.WITHDRAWAL)
    journal.settled("wdr_open", type=OperationType.WITHDRAWAL, status=OperationStatus.PROCESSING)
    journal.change("wal_asha", usage=_USAGE)
    journal.say(journal.returning("wdr_a"), why="it counts for the limits no more")
    journal.say(journal.returning("wdr_a"), why="said again")
    journal.say(journal.returning("wdr_a", amount=499), why="once more, of another amount")
    journal.say(journal.returning("wdr_b", amount=499), why="of another amount")
    journal.say(journal.returning("wdr_open"), why="it has not ended")
    journal.say(journal.returning("wdr_none"), why="nothing is there")
    journal.change("wal_asha", status=WalletStatus.CLOSED)
    journal.say(journal.returning("wdr_b"), why="closed")
    journal.change("wal_asha", status=WalletStatus.FROZEN, freeze=Freeze.BOTH, held=2**53 - 1 - 500)
    journal.say(journal.returning("wdr_c"), why="it does not fit")
    waiting = return_id_of("wdr_c")
    journal.say(journal.collecting(waiting), why="it still does not fit")
    journal.say(journal.collecting(waiting, user="usr_asha"), why="one's own")
    journal.say(journal.collecting(waiting, user="usr_gone"), why="nobody who may act")
    journal.say(journal.collecting("rtn_none"), why="nothing is there")
    journal.change("wal_asha", held=0)
    journal.say(journal.collecting(waiting))
    journal.say(journal.collecting(waiting), why="once only")
    journal.compare("returns_of_withdrawals")


def test_returns_of_deposits() -> None:
    journal = Wallets()
    journal.fund("wal_asha", 1_000)
    for name in ("dep_a", "dep_b", "dep_c", "dep_d"):
        journal.settled(name)
    journal.say(journal.returning("dep_a"), why="all of it is there")
    older, newer = journal.set_aside(150), journal.set_aside(200)
    journal.say(journal.returning("dep_b", newer, older), why="from what is available, and then from holds")
    journal.say(journal.credit(40), why="what comes in later")
    journal.say(journal.returning("dep_c"), why="nothing is there")
    journal.say(journal.returning("dep_c"), why="said again")
    journal.say(journal.credit(700), why="pays it, and what is left is the owner's")
    journal.say(journal.credit(100), why="nothing is owed any more")
    journal.compare("returns_of_deposits")


def test_returns_in_a_row() -> None:
    journal = Wallets()
    journal.fund("wal_asha", 510)
    for name, amount in (("dep_a", 490), ("dep_b", 20), ("dep_c", 9), ("dep_d", 7), ("dep_e", 5)):
        journal.settled(name, amount=amount)
    hold = journal.set_aside(30)
    journal.say(journal.returning("dep_a", hold, amount=490), why="a part of the hold")
    journal.say(journal.returning("dep_b", hold, amount=20), why="the rest of the hold")
    journal.say(journal.returning("dep_c", hold, amount=9), why="the hold is over")
    journal.say(journal.returning("dep_d", amount=7), why="one more that is owed")
    journal.say(journal.returning("dep_e", amount=5), why="and one more")
    journal.say(journal.credit(10), why="pays the oldest, and a part of the next")
    journal.say(journal.credit(20), why="pays the others")
    journal.compare("returns_in_a_row")


def test_returns_and_their_holds() -> None:
    journal = Wallets()
    journal.fund("wal_asha", 100)
    for name, amount in (("dep_a", 60), ("dep_b", 2)):
        journal.settled(name, amount=amount)
    others = journal.set_aside(9)
    journal.put(journal.made(others.id)._replace(wallet_id="wal_ravi"))
    over, first, second = journal.set_aside(9), journal.set_aside(9), journal.set_aside(9)
    journal.begin(journal.releasing(over.id))
    journal.change(
        "wal_asha", held=journal.wallet("wal_asha").held + 30, available=journal.wallet("wal_asha").available - 30
    )
    gone = NamedHold("hld_none", "ent_none")
    journal.say(journal.returning("dep_a", gone, over, others, first, second, amount=60), why="of those that are open")
    journal.say(journal.releasing(second.id), why="what is left of one comes back")
    journal.say(journal.returning("dep_b", amount=2), why="all but one is there")
    journal.compare("returns_and_their_holds")


def test_returns_that_wait() -> None:
    journal = Wallets()
    journal.fund("wal_asha", 30)
    for name in ("dep_a", "dep_b", "dep_c"):
        journal.settled(name)
    hold = journal.set_aside(20)
    journal.change("wal_asha", status=WalletStatus.CLOSED)
    journal.say(journal.returning("dep_a", hold), why="closed")
    journal.change("wal_asha", status=WalletStatus.ACTIVE, owed=1, debts=tuple(f"rtn_{n}" for n in range(MAX_DEBTS)))
    journal.change("wal_asha", available=0)
    journal.say(journal.returning("dep_b", hold), why="it owes too many")
    waiting = return_id_of("dep_b")
    journal.change("wal_asha", debts=("rtn_0",), owed=2**53 - 500, freeze=None, status=WalletStatus.ACTIVE)
    journal.say(journal.returning("dep_c", hold), why="it owes too much")
    journal.change("wal_asha", owed=2**53 - 1 - 500)
    journal.settled("dep_d")
    journal.say(journal.returning("dep_d"), why="it may owe just as much")
    journal.change("wal_asha", debts=("rtn_0",), owed=2**53 - 500)
    journal.say(journal.collecting(waiting, hold), why="it still does")
    journal.change("wal_asha", debts=(), owed=0, available=10)
    journal.say(journal.collecting(waiting, hold), why="the rest is owed")
    journal.say(journal.collecting(return_id_of("dep_c")), why="all of it is owed")
    journal.compare("returns_that_wait")


def test_returns_freeze_a_wallet() -> None:
    for freeze in (None, *Freeze):
        journal = Wallets()
        journal.settled("dep_a")
        if freeze is not None:
            journal.change("wal_asha", status=WalletStatus.FROZEN, freeze=freeze)
        journal.put(build_incident(id="inc_1"))
        journal.say(journal.returning("dep_a"), why="its incident is open already")
        journal.compare(f"returns_freeze_{freeze or 'active'}")


def test_returns_of_points() -> None:
    journal = Wallets()
    journal.fund("wal_asha", 3_000)
    journal.fund("wal_asha_points", 15)
    for name in ("dep_a", "dep_b", "dep_c", "dep_d"):
        journal.settled(name)
    journal.put(*(build_reward(id=f"rwd_{name}", operation_id=f"dep_{name}") for name in "abc"))
    journal.put(build_reward(id="rwd_d", operation_id="dep_d", status=RewardStatus.LAPSED))
    journal.change("wal_asha_points", updated_at=at(journal.number + 1) + timedelta(seconds=7))
    journal.say(journal.returning("dep_a"), why="its points are there, just as many")
    journal.say(journal.returning("dep_d"), why="its points had lapsed")
    journal.fund("wal_asha_points", 10)
    journal.say(journal.returning("dep_b"), why="its points were spent")
    journal.say(journal.credit(3, "wal_asha_points"), why="what comes in pays them")
    journal.settled("dep_e")
    journal.put(build_reward(id="rwd_e", operation_id="dep_e"))
    journal.change("wal_asha_points", updated_at=at(journal.number + 9))
    journal.say(journal.returning("dep_e"), why="nothing of its points is there, and the clock was ahead")
    journal.change("wal_asha_points", status=WalletStatus.CLOSED)
    journal.say(journal.returning("dep_c"), why="the points' wallet is closed")
    journal.say(journal.earning("dep_a"), why="no points for what was taken back")
    journal.compare("returns_of_points")


def test_points() -> None:
    journal = Wallets()
    journal.settled("dep_a")
    journal.settled("dep_less", amount=49)
    journal.settled("dep_open", status=OperationStatus.PROCESSING)
    journal.settled("dep_gone", return_id="rtn_gone")
    journal.settled("wdr_back", type=OperationType.WITHDRAWAL, return_id="rtn_back")
    journal.put(build_transfer(id="trf_t", amount=120))
    journal.say(journal.earning("dep_a"))
    journal.say(journal.earning("dep_a"), why="once only")
    journal.say(journal.earning("trf_t"))
    journal.say(journal.earning("wdr_back"), why="it came back")
    journal.say(journal.earning("dep_less"), why="too little")
    journal.say(journal.earning("dep_open"), why="it has not ended")
    journal.say(journal.earning("dep_gone"), why="the bank took it back")
    journal.say(journal.earning("dep_none"), why="nothing is there")
    journal.say(journal.earning("dep_a", "usr_ravi"), why="another's")
    journal.settled("dep_ravi", user_id="usr_ravi", wallet_id="wal_ravi")
    journal.say(journal.earning("dep_ravi", "usr_ravi"), why="no wallet for them")
    journal.settled("dep_b")
    journal.change("wal_asha_points", held=2**53 - 1 - 10 - journal.wallet("wal_asha_points").available)
    journal.say(journal.earning("dep_b"), why="they just fit")
    journal.settled("dep_c")
    journal.say(journal.earning("dep_c"), why="they do not fit")
    journal.settled("dep_d")
    journal.change("wal_asha_points", held=0, status=WalletStatus.CLOSED)
    journal.say(journal.earning("dep_d"), why="the wallet is closed")
    journal.settled("dep_e")
    journal.change("wal_asha_points", status=WalletStatus.FROZEN, freeze=Freeze.BOTH)
    journal.say(journal.earning("dep_e"), why="a frozen one takes them")
    journal.compare("points")


def test_the_catalogue() -> None:
    journal = Wallets()
    voucher = build_voucher(created_by=None, updated_by=None, valid_from=at(0))
    journal.say(CreateVoucher(**journal.audited("usr_admin"), voucher=voucher))
    senseless = voucher._replace(id="vch_2", valid_until=voucher.valid_from)
    journal.say(CreateVoucher(**journal.audited("usr_admin"), voucher=senseless), why="over before it begins")
    for_ever = voucher._replace(id="vch_3", valid_until=None)
    journal.say(CreateVoucher(**journal.audited("usr_admin"), voucher=for_ever), why="for ever")
    journal.say(CreateVoucher(**journal.audited("usr_gone"), voucher=for_ever), why="nobody who may act")
    journal.say(journal.updating(title="Tea", is_active=False, add_stock=5))
    journal.say(journal.updating(add_stock=-13, is_active=True), why="all of it")
    journal.say(journal.updating(add_stock=-1), why="more than there is")
    journal.say(journal.updating(description=None, now=at(1)), why="it comes late")
    journal.say(journal.updating(valid_until=at(0)), why="over before it begins")
    journal.say(journal.updating(valid_from=None), why="since ever")
    journal.say(journal.updating("usr_gone", title="Tea"), why="nobody who may act")
    journal.say(journal.updating(voucher_id="vch_none", title="Tea"), why="nothing is there")
    journal.compare("catalogue")


def test_redemptions() -> None:
    journal = Wallets()
    journal.fund("wal_asha_points", 250)
    journal.put(build_voucher(valid_from=at(5), valid_until=at(200)))
    journal.say(journal.redeeming(), why="before it is valid")
    journal.number = 10
    journal.say(journal.redeeming(key="first"))
    journal.say(journal.redeeming("vch_1", "usr_gone"), why="nobody who may act")
    journal.say(journal.redeeming("vch_none"), why="nothing is there")
    journal.say(journal.redeeming("vch_1", "usr_ravi"), why="no wallet for points")
    journal.say(journal.redeeming())
    journal.say(journal.redeeming(), why="as often as one may")
    journal.put(build_voucher(id="vch_dear", cost=51, per_user_limit=None, valid_from=None, stock=1))
    journal.say(journal.redeeming("vch_dear"), why="more than there is")
    journal.change("wal_asha_points", available=51)
    journal.change("wal_asha_points", status=WalletStatus.FROZEN, freeze=Freeze.OUT)
    journal.say(journal.redeeming("vch_dear"), why="frozen")
    journal.change("wal_asha_points", status=WalletStatus.ACTIVE, freeze=None)
    journal.say(journal.redeeming("vch_dear"), why="the last one")
    journal.say(journal.redeeming("vch_dear"), why="none is left")
    journal.put(build_voucher(id="vch_off", is_active=False))
    journal.say(journal.redeeming("vch_off"), why="it is off")
    journal.forget_answers()
    journal.say(journal.redeeming(key="first"), why="its answer has expired")
    journal.number = 250
    journal.say(journal.redeeming(), why="it is over")
    journal.compare("redemptions")


def test_freezing() -> None:
    journal = Wallets()
    journal.say(journal.freezing(Freeze.OUT, "usr_gone"), why="nobody who may act")
    journal.say(journal.freezing(Freeze.OUT, wallet_id="wal_none"), why="no wallet")
    journal.say(journal.unfreezing(), why="it is not frozen")
    journal.say(journal.freezing(Freeze.OUT))
    journal.say(journal.freezing(Freeze.OUT), why="it is so already")
    journal.say(journal.freezing(Freeze.BOTH, "usr_asha"), why="whoever may, may shut their own")
    journal.say(journal.freezing(Freeze.OUT, "usr_asha"), why="nobody opens their own")
    journal.say(journal.freezing(Freeze.OUT), why="in is opened")
    journal.put(build_return(id="rtn_w", type=ReturnType.WITHDRAWAL, status=ReturnStatus.REQUIRES_REVIEW))
    journal.put(build_return(id="rtn_d", status=ReturnStatus.REQUIRES_REVIEW))
    journal.put(build_return(id="rtn_done", status=ReturnStatus.SUCCESS))
    journal.say(journal.freezing(Freeze.IN), why="out may not be opened under a return")
    journal.say(journal.unfreezing(), why="under a return")
    journal.say(journal.unfreezing("usr_asha"), why="one's own")
    journal.change("wal_asha", owed=4)
    journal.say(journal.unfreezing(), why="it owes")
    journal.change("wal_asha", owed=0)
    journal.put(build_return(id="rtn_d", status=ReturnStatus.SUCCESS))
    journal.say(journal.freezing(Freeze.IN), why="out is opened")
    journal.say(journal.unfreezing())
    journal.put(build_return(id="rtn_d", status=ReturnStatus.REQUIRES_REVIEW))
    broken = journal.on("usr_system")
    del journal.books.users["usr_boss"]
    journal.say(FreezeBrokenWallet(**broken, freeze=Freeze.BOTH), why="by the system, which is no user")
    narrower = journal.on("usr_system")
    journal.say(FreezeBrokenWallet(**narrower, freeze=Freeze.IN), why="it asks for no return")
    journal.say(FreezeBrokenWallet(**journal.on("usr_system", "wal_none"), freeze=Freeze.BOTH), why="no wallet")
    journal.change("wal_asha", status=WalletStatus.CLOSED)
    journal.say(journal.freezing(Freeze.IN), why="closed")
    journal.say(journal.unfreezing(), why="closed")
    journal.compare("freezing")


def test_unfreezing_beside_returns() -> None:
    """In one batch."""
    journal = Wallets()
    for name in ("dep_a", "dep_b"):
        journal.settled(name)
    journal.change("wal_asha", status=WalletStatus.CLOSED)
    opening = journal.returning("dep_a"), journal.reopening(), journal.unfreezing()
    journal.say(*opening, why="the return comes before it is unfrozen")
    journal.say(journal.collecting(return_id_of("dep_a")), journal.credit(500), journal.unfreezing(), why="it is paid")
    journal.change("wal_asha", status=WalletStatus.CLOSED)
    journal.say(journal.returning("dep_a"), journal.returning("dep_b"), journal.reopening(), why="another waits")
    journal.put(build_return(id="rtn_older", status=ReturnStatus.REQUIRES_REVIEW))
    collecting = journal.collecting(return_id_of("dep_b")), journal.credit(500), journal.unfreezing()
    journal.say(*collecting, why="one is paid, and one waits that nobody names")
    journal.compare("unfreezing_beside_returns")


def test_closing() -> None:
    journal = Wallets()
    journal.say(journal.closing("usr_gone"), why="nobody who may act")
    journal.say(journal.closing("usr_ravi"), why="another's")
    journal.say(journal.closing("usr_admin", reason=None), why="another's, without a reason")
    journal.change("wal_asha", available=1)
    journal.say(journal.closing(), why="it is not empty")
    journal.change("wal_asha", available=0, held=2)
    journal.say(journal.closing(), why="something is set aside")
    journal.change("wal_asha", held=0, open_operations=3)
    journal.say(journal.closing(), why="something may still come")
    journal.change("wal_asha", open_operations=0, owed=4, debts=("rtn_0",))
    journal.say(journal.closing(), why="it owes")
    journal.change("wal_asha", owed=0, debts=(), status=WalletStatus.FROZEN, freeze=Freeze.IN)
    journal.say(journal.closing(), why="a frozen one is an admin's to close")
    journal.say(journal.closing("usr_admin"))
    journal.say(journal.closing("usr_admin"), why="closed already")
    journal.say(journal.reopening("usr_gone"), why="nobody who may act")
    journal.say(journal.reopening("usr_asha"), why="one's own")
    journal.say(journal.reopening(wallet_id="wal_none"), why="no wallet")
    journal.say(journal.reopening())
    journal.say(journal.reopening(), why="it is open")
    journal.say(journal.closing(reason=None), why="one's own needs no reason")
    journal.change("wal_asha", open_operations=1)
    journal.say(journal.reopening(), why="something came back meanwhile")
    journal.say(journal.reopening(), why="it is frozen")
    journal.change("wal_asha", status=WalletStatus.CLOSED, freeze=None, available=1)
    journal.say(journal.reopening(), why="it is not empty")
    journal.change("wal_asha", available=0)
    journal.books.policy = journal.books.policy._replace(currencies=frozenset({"USD"}))
    journal.say(journal.reopening(), why="not dealt in any more")
    journal.compare("closing")


def test_limits() -> None:
    journal = Wallets()
    own = Limits(per_transaction=1, per_day=2, per_month=3, count_per_hour=4)
    journal.say(journal.limiting(own))
    journal.say(journal.limiting(own), why="it is so already")
    journal.say(journal.limiting(own, "usr_asha", time_zone="Asia/Tokyo"), why="one's own")
    journal.say(journal.limiting(own, "usr_gone", time_zone="Asia/Tokyo"), why="nobody who may act")
    journal.say(journal.limiting(own, time_zone="Asia/Tokyo"), why="in another zone")
    journal.say(journal.limiting(None, time_zone="Asia/Tokyo", now=at(1)), why="the usual ones, and it comes late")
    journal.say(journal.limiting(None, time_zone=None, now=at(1)), why="all as usual, and it comes late")
    journal.say(journal.limiting(own, owner_id="usr_ravi", currency="JPY"), why="no wallet in it")
    journal.change("wal_asha", status=WalletStatus.CLOSED)
    journal.say(journal.limiting(own), why="closed")
    journal.compare("limits")


def test_time_zones() -> None:
    journal = Wallets()
    journal.change("wal_asha_points", updated_at=at(journal.number + 30))
    journal.say(journal.zoning("Asia/Tokyo"))
    journal.say(journal.zoning("Asia/Tokyo"), why="it is so already")
    journal.say(journal.zoning("Asia/Tokyo", "usr_gone"), why="nobody who may act")
    journal.say(journal.zoning(None, now=at(0)), why="each currency's, and it comes late")
    journal.say(journal.zoning(None, "usr_ravi"), why="it was never another")
    journal.say(journal.zoning("Asia/Tokyo", "usr_boss"), why="of somebody without a wallet")
    journal.say(journal.zoning(None, "usr_boss", now=at(0)), why="of somebody without a wallet, and it comes late")
    journal.compare("time_zones")
