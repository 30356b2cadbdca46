"""Rules of the machine: points for what has settled, and vouchers."""

from datetime import timedelta

from hypothesis import strategies as st

from service.domain.identifiers import Prefix, new_id
from service.domain.money import POINTS
from service.domain.rewards import reward_id
from service.domain.sealed import Sealed
from service.domain.vouchers import Voucher as VoucherRecord
from service.domain.vouchers import voucher_use_id
from service.ledger.rewards import EarnPoints
from service.ledger.vouchers import CreateVoucher, RedeemVoucher, UpdateVoucher
from tests.machine.adjustments import AdjustmentRules
from tests.machine.base import ACTORS, ENDS, TOKENS, USERS, WHICH, move
from tests.model.orders import Waiting
from tests.model.rewards import Voucher

_COSTS = st.sampled_from((1, 50, 400, 1_500))
_STOCKS = st.sampled_from((0, 1, 1, 2, 5))
_EACH_AT_MOST = st.sampled_from((None, 1, 2))
# From when until when, in seconds from now.
_VALID_S = st.sampled_from(((None, None), (None, None), (-60, 30), (30, 600), (60, 60), (None, None), (None, None)))
# Mostly by those who have points.
_HOLDERS = st.sampled_from((0, 0, 0, 0, 2, 1, 1, 1, 1))


class RewardRules(AdjustmentRules):
    @move(
        when=lambda self: any(self._earns(name) for name in self.paper.of(Waiting)), which=WHICH, by=ACTORS, ends=ENDS
    )
    def earn(self, which: int, by: int | None, *, ends: bool) -> None:
        """As the worker does for what is in the outbox; also again, and for what is not there."""
        known = sorted(self.paper.of(Waiting), key=self._earns)
        operation = known[-1 - which % len(known)]
        name, user = reward_id(operation), self.actor(by, self.paper.things[operation].owner)
        self.say(
            lambda common: EarnPoints(operation_id=operation, user_id=user, entry_id=new_id(Prefix.ENTRY), **common),
            lambda: self.paper.earn(name, operation, user),
            name,
            operation,
            ends=ends,
        )

    def _earns(self, name: str) -> bool:
        has_purse = self.paper.purse_of(self.paper.things[name].owner, POINTS) is not None
        return has_purse and f"reward:{name}" in self.paper.awaited

    @move(
        user=USERS, token=TOKENS, cost=_COSTS, stock=_STOCKS, each_at_most=_EACH_AT_MOST, valid_s=_VALID_S, ends=ENDS
    )  # fmt: skip
    def create_voucher(
        self, user: int, token: int | None, cost: int, stock: int, each_at_most: int | None,
        valid_s: tuple[int | None, int | None], *, ends: bool,
    ) -> None:  # fmt: skip
        now, name, asker = self.paper.now, new_id(Prefix.VOUCHER), self.users[user]
        begins, over = (None if one is None else now + timedelta(seconds=one) for one in valid_s)
        record = VoucherRecord(
            id=name, title="A voucher", description=None, cost=cost, stock=stock, stocked_total=stock,
            per_user_limit=each_at_most, valid_from=begins, valid_until=over, is_active=True, created_at=now,
            updated_at=now,
        )  # fmt: skip
        self.say(
            lambda common: CreateVoucher(
                audit_event_id=new_id(Prefix.AUDIT_EVENT),
                reason=None,
                user_id=asker,
                token_version=token,
                voucher=record,
                **common,
            ),
            lambda: self.paper.create_voucher(
                name, asker, token, Voucher(asker, "", cost, "", stock, stock, each_at_most, begins, over)
            ),
            name,
            by=asker,
            ends=ends,
        )

    @move(
        when=lambda self: self.paper.of(Voucher),
        which=WHICH,
        user=USERS,
        token=TOKENS,
        more=st.integers(-3, 3),
        is_active=st.booleans(),
        ends=ENDS,
    )
    def update_voucher(
        self, which: int, user: int, token: int | None, more: int, *, is_active: bool, ends: bool
    ) -> None:  # fmt: skip
        name, asker = self.newest(which, Voucher), self.users[user]
        self.say(
            lambda common: UpdateVoucher(
                voucher_id=name, changes={"is_active": is_active}, add_stock=more, user_id=asker,
                token_version=token, audit_event_id=new_id(Prefix.AUDIT_EVENT), reason=None, **common,
            ),
            lambda: self.paper.update_voucher(name, asker, token, more, is_active=is_active),
            name,
            by=asker,
            ends=ends,
        )  # fmt: skip

    @move(often=3, when=lambda self: self.paper.of(Voucher), which=WHICH, user=_HOLDERS, token=TOKENS, ends=ENDS)
    def redeem(self, which: int, user: int, token: int | None, *, ends: bool) -> None:
        voucher, name, asker = self.newest(which, Voucher), new_id(Prefix.REDEMPTION), self.users[user]
        use = voucher_use_id(voucher, asker)
        self.say(
            lambda common: RedeemVoucher(
                voucher_id=voucher, redemption_id=name, entry_id=new_id(Prefix.ENTRY), user_id=asker,
                code_sealed=Sealed("00000000", b"sealed"), token_version=token, **common,
            ),
            lambda: self.paper.redeem(name, use, voucher, asker, token),
            name,
            use,
            voucher,
            by=asker,
            ends=ends,
        )  # fmt: skip
