"""Breaks: reported by whoever looks at the books, explained and resolved by admins, or by themselves."""

from collections.abc import Iterable
from datetime import datetime

import structlog
from pymongo.asynchronous.client_session import AsyncClientSession

from service.database import Client, run_in_transaction
from service.domain.audit_events import AuditAction
from service.domain.breaks import (
    BANK_KINDS,
    BOOK_KINDS,
    SYSTEM,
    Break,
    BreakKind,
    BreakState,
    Finding,
    Word,
    fingerprint,
    stays_resolved,
)
from service.domain.clock import utc_now
from service.domain.identifiers import Prefix, new_id
from service.domain.wallets import Freeze
from service.errors import IllegalTransition, NotFound, WalletBooksDisagree, WalletClosed, WalletServiceError
from service.ledger.audit_events import Unchanged
from service.ledger.breaks import FreezeBrokenWallet
from service.ledger.committer import Ledger
from service.ledger.rules import require_anothers
from service.repositories import audit_events as audit_repository
from service.repositories import breaks as break_repository
from service.repositories import wallets as wallet_repository
from service.repositories.breaks import BreakFilter as BreakFilter  # noqa: PLC0414 controllers name it, and may not reach below
from service.services.audit_events import new_audit_event

log = structlog.get_logger()

# Somebody says something of it just when it is seen again, and once more: nobody goes on being as quick.
_ATTEMPTS = 5
_NO_LONGER = "It does not show any more"


async def report(finding: Finding, ledger: Ledger, now: datetime) -> Break:
    """Opens a break, or notes that it shows still; the wallet whose books disagree is shut both ways.

    A break that was explained or resolved stays so while its facts stay the same. If they change, an explained one is
    open again, and beside a resolved one another opens.

    Safe to repeat, and by several workers at once. A wallet that could not be shut is tried again with the next report.
    """
    if finding.kind in BANK_KINDS:
        latest = await break_repository.find_latest(finding.kind, finding.subject)
        if latest is not None and stays_resolved(latest, finding):
            await break_repository.see_resolved_again(latest, now)
            return latest
    for _ in range(_ATTEMPTS):
        fresh = _new_break(finding, now)
        if await break_repository.insert_once(fresh):
            log.error("break.opened", break_id=fresh.id, kind=fresh.kind, subject=fresh.subject)
            known = fresh
            break
        before = await break_repository.find_unresolved(finding.kind, finding.subject)
        seen = None if before is None else await break_repository.see_again(before, finding, now)
        if before is not None and seen is not None:
            if seen.state is not before.state:
                log.error("break.reopened", break_id=seen.id, kind=seen.kind, subject=seen.subject)
            known = seen
            break
    else:
        return fresh
    if known.kind in BOOK_KINDS and known.state is BreakState.OPEN and known.wallet_id is not None:
        await _freeze(known.wallet_id, known, ledger)
    return known


def _new_break(finding: Finding, now: datetime) -> Break:
    return Break(
        id=new_id(Prefix.BREAK),
        **finding._asdict(),
        state=BreakState.OPEN,
        first_seen=now,
        last_seen=now,
        times_seen=1,
    )


async def _freeze(wallet_id: str, known: Break, ledger: Ledger) -> None:
    command = FreezeBrokenWallet(
        now=utc_now(),
        transaction_id=new_id(Prefix.TRANSACTION),
        user_id=SYSTEM,
        token_version=None,
        audit_event_id=new_id(Prefix.AUDIT_EVENT),
        reason=f"Its books disagree: {known.id} ({known.kind})",
        wallet_id=wallet_id,
        freeze=Freeze.BOTH,
    )
    try:
        await ledger.execute(command)
    except (Unchanged, WalletClosed):
        # Nothing can move in it as it is.
        return
    except WalletServiceError as error:
        # What is damaged may be past what the ledger can write. The break stays open and says so.
        log.critical("break.wallet_not_frozen", break_id=known.id, wallet_id=wallet_id, error=error.code)
    else:
        log.error("break.wallet_frozen", break_id=known.id, wallet_id=wallet_id)


async def resolve_by_itself(client: Client, gone: Iterable[Break], reason: str = _NO_LONGER) -> int:
    """Resolves what a look at the same books has not found any more. Returns how many these were.

    `gone` as that look saw them: what somebody else has seen again since is left to the next look.
    """
    resolved = 0
    for one in gone:
        try:
            await _say(client, one.id, BreakState.RESOLVED, SYSTEM, reason, None, times_seen=one.times_seen)
        except (IllegalTransition, _SeenSinceError):
            # An admin was first, or it shows.
            continue
        resolved += 1
        log.info("break.resolved", break_id=one.id, kind=one.kind, by=SYSTEM)
    return resolved


async def list_breaks(wanted: BreakFilter, *, before_id: str | None, limit: int) -> list[Break]:
    """Newest first."""
    return await break_repository.find_newest(wanted, before_id=before_id, limit=limit)


async def get_break(break_id: str) -> Break:
    """Raises NotFound."""
    found = await break_repository.find(break_id)
    if found is None:
        raise NotFound(f"There is no break {break_id}")
    return found


async def explain_break(client: Client, admin_id: str, break_id: str, reason: str, request_id: str | None) -> Break:
    """Somebody knows why, and answers for it: from here on its wallet may be thawed.

    Raises NotFound, SecondAdminRequired, IllegalTransition where it is not open, Unavailable.
    """
    return await _say(client, break_id, BreakState.EXPLAINED, admin_id, reason, request_id)


async def resolve_break(client: Client, admin_id: str, break_id: str, reason: str, request_id: str | None) -> Break:
    """Closes the break for good. If its facts change, or our own books disagree still, another one opens.

    Raises NotFound, SecondAdminRequired, IllegalTransition, Unavailable.
    """
    return await _say(client, break_id, BreakState.RESOLVED, admin_id, reason, request_id)


_FROM = {
    BreakState.EXPLAINED: (BreakState.OPEN,),
    BreakState.RESOLVED: (BreakState.OPEN, BreakState.EXPLAINED),
}
_ACTIONS = {
    BreakState.EXPLAINED: AuditAction.BREAK_EXPLAINED,
    BreakState.RESOLVED: AuditAction.BREAK_RESOLVED,
}


class _SeenSinceError(Exception):
    """It shows again, to somebody who looked later."""


async def _say(
    client: Client,
    break_id: str,
    state: BreakState,
    by: str,
    reason: str,
    request_id: str | None,
    *,
    times_seen: int | None = None,
) -> Break:
    """Returns the break afterwards, with its audit event in the same transaction.

    With `times_seen` only where it has not been seen more often. Raises _SeenSinceError.
    """
    now = utc_now()
    event = new_audit_event(_ACTIONS[state], actor_id=by, subject_id=break_id, request_id=request_id, reason=reason)

    async def say(session: AsyncClientSession) -> Break:
        before = await break_repository.find(break_id, session=session)
        if before is None:
            raise NotFound(f"There is no break {break_id}")
        if before.wallet_id is not None:
            wallet = await wallet_repository.find(before.wallet_id)
            require_anothers(by, None if wallet is None else wallet.user_id)
        if before.state not in _FROM[state]:
            raise IllegalTransition(f"{break_id} is {before.state}", status_now=before.state)
        if times_seen not in (None, before.times_seen):
            raise _SeenSinceError
        word = Word(by, reason, now, fingerprint(before.expected, before.found))
        after = before._replace(state=state, version=before.version + 1)
        after = after._replace(explained=word) if state is BreakState.EXPLAINED else after._replace(resolved=word)
        guarded = await break_repository.replace_guarded(before, after, session=session)
        assert guarded, "a transaction sees what it found"  # noqa: S101 a snapshot is one moment
        details = {"kind": before.kind.value, "subject": before.subject, "was": before.state.value}
        await audit_repository.insert(event._replace(details=details), session=session)
        return after

    said = await run_in_transaction(client, say)
    log.info("break.turned", break_id=break_id, state=state, by=by)
    return said


async def require_books_agree(wallet_id: str) -> None:
    """Raises WalletBooksDisagree while nobody has explained or resolved what is wrong with the wallet's books.

    A break that opens at the same moment is not seen: then the next replay shuts the wallet again.
    """
    for one in await break_repository.find_unresolved_of_wallets(BOOK_KINDS, [wallet_id]):
        if one.state is BreakState.OPEN:
            raise WalletBooksDisagree(wallet_id=wallet_id, break_id=one.id)


async def count_unresolved_breaks() -> dict[BreakKind, int]:
    """By kind, those that have none too: for metrics."""
    found = await break_repository.count_unresolved()
    return {kind: found.get(kind, 0) for kind in BreakKind}
