"""What audit events say about a wallet, held against the wallet itself."""

import pytest

from scripts.audit_rules import AuditRule, check_deeds, check_wallet_deeds


def _event(action: str, was: tuple[str, str | None], direction: str | None = None) -> dict[str, object]:
    return {
        "action": action,
        "details": {"direction": direction, "was_status": was[0], "was_direction": was[1]},
    }


@pytest.mark.parametrize(("direction", "now"), [(None, ("active", None)), ("out", ("frozen", "out"))])
def test_a_wallet_is_reopened_open_or_shut(direction: str | None, now: tuple[str, str | None]) -> None:
    """Shut where the bank had sent something back to it meanwhile."""
    events = [
        _event("wallet.closed", ("active", None)),
        _event("wallet.reopened", ("closed", None), direction),
    ]
    assert list(check_wallet_deeds([{"status": now[0], "freeze": now[1]}], events)) == []
    forged = {"status": "active", "freeze": None} if direction else {"status": "frozen", "freeze": "out"}
    assert [rule for rule, _ in check_wallet_deeds([forged], events)] == [AuditRule.MISSING]


def test_a_release_overrides_the_blocks_that_its_event_names() -> None:
    blocks: dict[str, object] = {
        "despite_freeze": False,
        "despite_deactivation": True,
        "deactivation_event_id": "aud_a",
    }
    withdrawal = {"status": "pending", "amount": 5, "currency": "INR", "release": {"by": "usr_boss", **blocks}}
    told = {"action": "withdrawal.released", "actor_id": "usr_boss", "details": blocks}
    earlier = {**told, "details": {"despite_freeze": True, "despite_deactivation": False}}
    assert list(check_deeds("withdrawals", withdrawal, [earlier, told])) == []
    for name, forged in (("despite_freeze", True), ("deactivation_event_id", "aud_b"), ("deactivation_event_id", None)):
        release = {"by": "usr_boss", **blocks, name: forged}
        found = check_deeds("withdrawals", {**withdrawal, "release": release}, [earlier, told])
        assert [rule for rule, _ in found] == [AuditRule.MISMATCH]


def test_a_wallets_time_zone_is_what_was_set_and_reset() -> None:
    apia = "Pacific/Apia"
    given = {"action": "limits.set", "details": {"time_zone": apia, "was_time_zone": None}}
    taken = {"action": "limits.reset", "details": {"time_zone": None, "was_time_zone": apia}}
    wallet = {"status": "active", "freeze": None, "limits": None}
    there, gone = {**wallet, "time_zone": apia}, {**wallet, "time_zone": None}
    assert list(check_wallet_deeds([there], [given])) == []
    assert list(check_wallet_deeds([gone], [given, taken])) == []
    for forged, events in ((gone, [given]), (there, [given, taken]), (there, [])):
        assert [rule for rule, _ in check_wallet_deeds([forged], events)] == [AuditRule.MISSING]
