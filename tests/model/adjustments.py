"""On paper: what admins and services do to money, wallets and limits; all of it accounted for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from tests.model.books import REFERENCE, Refused, Thing
from tests.model.conversions import ConversionPaper
from tests.model.transfers import Transfer

HOUSE = "house:adjustments"


@dataclass
class Adjustment(Thing):
    is_credit: bool
    decided_by: str | None = None
    reversal: str | None = None
    counted_for: tuple[str, ...] = ()

    def shown(self) -> Mapping[str, object]:
        facts = {"status": self.status, "decided_by": self.decided_by, "reversal_id": self.reversal}
        return {**facts, "counted_for": list(self.counted_for)}


@dataclass
class Reversal(Thing):
    """`short` is what the house had to bear."""

    short: int
    counted_for: tuple[str, ...]

    def shown(self) -> Mapping[str, object]:
        facts = {"status": self.status, "amount": self.amount, "shortfall": self.short}
        return {**facts, "counted_for": list(self.counted_for)}


class AdjustmentPaper(ConversionPaper):
    # By currency: above it a second admin has to agree.
    second_admin_above: dict[str, int]
    # So it has to above that in a day, in UTC, of one person or key.
    alone_above: dict[str, int]

    def request_adjustment(
        self, name: str, user: str, token: int | None, purse: str, currency: str, amount: int, *, is_credit: bool,
        is_admin: bool, with_key: Sequence[str] = (),
    ) -> dict[str, object]:  # fmt: skip
        self.require_asker(user, token)
        if self.purses[purse].currency != currency:
            raise Refused("currency_mismatch")
        if not is_admin:
            (self.require_way_in if is_credit else self.require_way_out)(purse)
        self._require_adjustable(purse, amount, is_credit=is_credit)
        adjustment = Adjustment(user, purse, amount, "requires_approval", is_credit)
        self.things[name] = adjustment
        self.audited.append((user, "adjustment.requested", name))
        is_large = currency in self.second_admin_above and amount > self.second_admin_above[currency]
        # Nobody makes money for themselves alone, not even a little.
        is_own = is_credit and self.purses[purse].owner == user
        counted = None if (is_admin and is_large) or is_own else self._move_alone((user, *with_key), currency, amount)
        if counted is None:
            self.purses[purse].open.add(name)
        else:
            adjustment.counted_for = counted
            self._adjust(adjustment, user)
        return {"status": adjustment.status, "amount": amount}

    def _move_alone(self, actors: Sequence[str], currency: str, amount: int) -> tuple[str, ...] | None:
        """Whom it counts for; None where one of them would move too much alone."""
        bound = self.alone_above.get(currency)
        if bound is None or not amount:
            return ()
        today = f"{self.now:%Y-%m-%d}"
        moved = {actor: self.moved_alone.get((actor, currency, today), 0) + amount for actor in sorted({*actors})}
        if max(moved.values()) > bound:
            return None
        self.moved_alone |= {(actor, currency, today): total for actor, total in moved.items()}
        return tuple(moved)

    def _require_adjustable(self, purse: str, amount: int, *, is_credit: bool) -> None:
        if self.purses[purse].shut == "closed":
            raise Refused("wallet_closed")
        (self.require_room if is_credit else self.require_money)(purse, amount)

    def _adjust(self, adjustment: Adjustment, by: str) -> None:
        self.give(adjustment.purse, adjustment.amount * (1 if adjustment.is_credit else -1), account=HOUSE)
        adjustment.status, adjustment.decided_by = "success", by

    def approve(self, name: str, user: str, token: int | None) -> dict[str, object]:
        adjustment = self._undecided(name, user, token)
        if user in (adjustment.owner, self.purses[adjustment.purse].owner):
            raise Refused("second_admin_required")
        self._require_adjustable(adjustment.purse, adjustment.amount, is_credit=adjustment.is_credit)
        self._adjust(adjustment, user)
        self.purses[adjustment.purse].open.remove(name)
        self.audited.append((user, "adjustment.approved", name))
        return {"status": "success"}

    def reject(self, name: str, user: str, token: int | None) -> dict[str, object]:
        adjustment = self._undecided(name, user, token)
        adjustment.status, adjustment.decided_by = "rejected", user
        self.purses[adjustment.purse].open.remove(name)
        self.audited.append((user, "adjustment.rejected", name))
        return {}

    def _undecided(self, name: str, user: str, token: int | None) -> Adjustment:
        self.require_asker(user, token)
        adjustment = self.thing(name, Adjustment)
        if adjustment.status != "requires_approval":
            raise Refused("illegal_transition")
        return adjustment

    # --- taken back

    def way_back(self, original: str) -> tuple[str | None, str | None]:
        """From which purse to which; None is the house."""
        thing = self.things[original]
        if isinstance(thing, Transfer):
            return thing.to, thing.purse
        return (thing.purse, None) if isinstance(thing, Adjustment) and thing.is_credit else (None, thing.purse)

    def reverse(
        self, name: str, user: str, token: int | None, original_name: str, points: tuple[str, str], *, is_forced: bool
    ) -> dict[str, object]:
        """`points` names the reward of a transfer, and its return."""
        self.require_asker(user, token)
        original = self.things[original_name]
        assert isinstance(original, Transfer | Adjustment)
        giver, taker = self.way_back(original_name)
        self._require_reversible(original, giver, taker, user)
        short = 0 if giver is None else max(0, original.amount - self.purses[giver].free)
        if short and not is_forced:
            raise Refused("reversal_not_covered")
        borne, bound = (
            original.amount if giver is None else short,
            self.second_admin_above.get(self.purses[original.purse].currency),
        )
        is_seen_by_two = isinstance(original, Adjustment) and original.owner != user
        if bound is not None and borne > bound and not is_seen_by_two:
            raise Refused("second_admin_required")
        if taker is not None:
            self.require_room(taker, original.amount)
        currency = self.purses[original.purse].currency
        counted = self._move_alone((user,), currency, short if taker is None else original.amount)
        if counted is None:
            raise Refused("second_admin_required")
        if giver is not None:
            self.take(giver, original.amount - short)
            self.outside[HOUSE, currency] += original.amount - short
        if taker is not None:
            self.give(taker, original.amount, account=HOUSE)
        if isinstance(original, Transfer):
            self.unspend(original.purse, original_name)
            self.take_points(original_name, *points)
        original.reversal = name
        self.things[name] = Reversal(user, original.purse, original.amount, "success", short, counted)
        kind = "transfer" if isinstance(original, Transfer) else "adjustment"
        self.audited.append((user, f"{kind}.reversed", original_name))
        return {"amount": original.amount, "shortfall": short, "taken": original.amount - short}

    def _require_reversible(
        self, original: Transfer | Adjustment, giver: str | None, taker: str | None, user: str
    ) -> None:  # fmt: skip
        if original.reversal is not None:
            raise Refused("already_reversed")
        if original.status != "success":
            raise Refused("illegal_transition")
        if any(purse is not None and self.purses[purse].shut == "closed" for purse in (giver, taker)):
            raise Refused("wallet_closed")
        if taker is not None:
            self._require_anothers(taker, user)

    def take_points(self, thing_name: str, reward_name: str, name: str) -> None:
        """For who knows points: they go back with what earned them."""

    # --- what becomes of a purse

    def require_nothing_returned(self, purse: str) -> None:
        """Nothing is owed, in this purse or another with money of its owner; and for who knows returns, none waits to
        take from them.
        """
        self.require_nothing_returned_of([purse, *self.beside(purse)])

    def require_nothing_returned_of(self, purses: Sequence[str]) -> None:
        for name in purses:
            self.require_nothing_owed(name)

    def beside(self, purse: str) -> list[str]:
        """The owner's other purses with money: points are none."""
        owner = self.purses[purse].owner
        return [
            name
            for name, one in sorted(self.purses.items())
            if one.owner == owner and name != purse and one.currency != "PTS"
        ]

    def freeze(
        self, purse: str, user: str, token: int | None, shut: str
    ) -> dict[str, object]:  # fmt: skip
        self.require_asker(user, token)
        self._require_other(purse, self.purses[purse].shut == shut)
        if self.purses[purse].shut is not None and shut != "both":
            self._require_anothers(purse, user)
            if shut == "in":
                self.require_nothing_returned(purse)
        self.purses[purse].shut = shut
        self.purses[purse].freezes += 1
        self.audited.append((user, "wallet.frozen", purse))
        return {}

    def unfreeze(self, purse: str, user: str, token: int | None) -> dict[str, object]:
        self.require_asker(user, token)
        self._require_other(purse, self.purses[purse].shut is None)
        self._require_anothers(purse, user)
        self.require_nothing_returned(purse)
        self.purses[purse].shut = None
        self.audited.append((user, "wallet.unfrozen", purse))
        return {}

    def close(
        self, name: str, user: str, token: int | None, *, is_admin: bool, has_reason: bool
    ) -> dict[str, object]:  # fmt: skip
        """By its owner while nothing is wrong with it, by an admin with a reason; empty, and with nothing under way."""
        self.require_asker(user, token)
        purse = self.purses[name]
        if purse.owner != user and not is_admin:
            raise Refused("not_found")
        if purse.owner != user and not has_reason:
            raise Refused("invalid_fields")
        if purse.shut == "closed":
            raise Refused("unchanged")
        if purse.shut is not None and not is_admin:
            raise Refused("wallet_frozen")
        self.require_nothing_owed(name)
        if purse.free or purse.aside:
            raise Refused("wallet_not_empty")
        if purse.open:
            raise Refused("wallet_has_open_operations")
        purse.shut = "closed"
        self.audited.append((user, "wallet.closed", name))
        return {}

    def reopen(self, name: str, user: str, token: int | None) -> dict[str, object]:
        """A closed one of somebody else's, in a currency that is dealt in."""
        self.require_asker(user, token)
        purse = self.purses[name]
        if purse.shut == "closed" and purse.currency in self.not_dealt_in:
            raise Refused("currency_not_offered")
        if purse.shut is None:
            raise Refused("unchanged")
        if purse.shut != "closed":
            raise Refused("wallet_frozen")
        self._require_anothers(name, user)
        self.require_nothing_returned_of(self.beside(name))
        purse.shut = "out" if purse.open else None
        purse.freezes += bool(purse.open)
        self.audited.append((user, "wallet.reopened", name))
        return {}

    def set_limits(
        self, owner: str, currency: str, user: str, token: int | None, limits: dict[str, int] | None
    ) -> dict[str, object]:
        """In place of the usual ones; None takes them away again."""
        self.require_asker(user, token)
        name = self.purse_of(owner, currency)
        if name is None:
            raise Refused("not_found")
        self._require_other(name, self.purses[name].own_limits == limits)
        self._require_anothers(name, user)
        self.purses[name].own_limits = limits
        self.audited.append((user, "limits.reset" if limits is None else "limits.set", name))
        return {}

    def set_time_zone(self, user: str, token: int | None, zone: str | None) -> dict[str, object]:
        """Where all of one's days and months begin."""
        self.require_asker(user, token)
        if self.persons[user].zone == zone:
            raise Refused("unchanged")
        person = self.persons[user]
        person.sheet.move(self.now, person.zone or REFERENCE, zone or REFERENCE)
        person.zone = zone
        for purse in self.purses.values():
            if purse.owner == user:
                purse.move(self.now, purse.zone or purse.currency, zone or purse.currency)
                purse.zone = zone
        self.audited.append((user, "user.time_zone_set", user))
        # The zone changes between two payments, also where both come at this moment.
        self.now += timedelta(milliseconds=1)
        return {}

    def set_overall_limits(
        self, owner: str, user: str, token: int | None, limits: dict[str, int] | None
    ) -> dict[str, object]:
        """Over all purses of a person."""
        self.require_asker(user, token)
        if self.persons[owner].own_limits == limits:
            raise Refused("unchanged")
        if owner == user:
            raise Refused("second_admin_required")
        self.persons[owner].own_limits = limits
        self.audited.append((user, "user.limits_reset" if limits is None else "user.limits_set", owner))
        # Each wallet of theirs is written, later than all that happened in it: a payment comes before that or after.
        self.now += timedelta(milliseconds=1)
        return {}

    def _require_anothers(self, purse: str, user: str) -> None:
        """Nobody lets their own money go where it may not."""
        if self.purses[purse].owner == user:
            raise Refused("second_admin_required")

    def _require_other(self, purse: str, is_so_already: bool) -> None:
        if self.purses[purse].shut == "closed":
            raise Refused("wallet_closed")
        if is_so_already:
            raise Refused("unchanged")
