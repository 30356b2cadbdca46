"""Queries on `access_proposals`."""

from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from service.documents import AccessProposalDocument
from service.domain.proposals import AccessProposal, ProposalStatus
from service.repositories.records import from_row, to_row


async def insert(proposal: AccessProposal, *, session: AsyncClientSession) -> None:
    await AccessProposalDocument.get_pymongo_collection().insert_one(to_row(proposal), session=session)


async def find(proposal_id: str, *, session: AsyncClientSession | None) -> AccessProposal | None:
    row = await AccessProposalDocument.get_pymongo_collection().find_one({"_id": proposal_id}, session=session)
    return None if row is None else from_row(AccessProposal, row)


async def find_waiting(user_id: str, *, session: AsyncClientSession) -> list[AccessProposal]:
    """Finds what waits for a second admin about one user's access."""
    condition = {"user_id": user_id, "status": ProposalStatus.REQUIRES_APPROVAL}
    found = AccessProposalDocument.get_pymongo_collection().find(condition, session=session)
    return [from_row(AccessProposal, row) for row in await found.to_list()]


async def find_newest(status: ProposalStatus | None, *, before_id: str | None, limit: int) -> list[AccessProposal]:
    """Newest first; `before_id` is the last one of the page before."""
    condition: dict[str, Any] = {} if status is None else {"status": status}
    if before_id is not None:
        condition["_id"] = {"$lt": before_id}
    found = AccessProposalDocument.get_pymongo_collection().find(condition, sort=[("_id", -1)], limit=limit)
    return [from_row(AccessProposal, row) for row in await found.to_list()]


async def replace(proposal: AccessProposal, *, session: AsyncClientSession) -> None:
    """It was read in the same transaction."""
    row = to_row(proposal)
    updated = await AccessProposalDocument.get_pymongo_collection().update_one(
        {"_id": row.pop("_id"), "version": proposal.version - 1}, {"$set": row}, session=session
    )
    assert updated.matched_count == 1, "a transaction sees what it changes"  # noqa: S101 a snapshot is one moment
