"""Queries on `totp_enrolments`. Every change is one compare-and-set: of two who use one code, one finds no match."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from pymongo import ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from service.documents import TotpEnrolment
from service.domain.sealed import Sealed
from service.domain.step_up import Challenge
from service.domain.totp import (
    ENROLMENT_MAILS,
    ENROLMENT_MAILS_WINDOW,
    TRIES,
    TRIES_WINDOW,
    Enrolment,
    Proof,
    TotpStatus,
)

_NO_ENROLMENT: dict[str, Any] = {
    "status": TotpStatus.NONE,
    "secret_id": "",
    "sealed_secret": None,
    "recovery_hashes": [],
    "activated_at": None,
    "confirms_from": None,
    "last_use": "",
}


async def find(user_id: str) -> Enrolment | None:
    row = await TotpEnrolment.get_pymongo_collection().find_one({"_id": user_id})
    return None if row is None else _enrolment(row)


async def find_activation_times() -> dict[str, datetime]:
    """Finds since when each user whose app is in use has had it."""
    active = {"status": TotpStatus.ACTIVE, "activated_at": {"$type": "date"}}
    found = TotpEnrolment.get_pymongo_collection().find(active, {"activated_at": 1})
    return {row["_id"]: row["activated_at"] async for row in found}


async def forget(user_id: str, now: datetime, *, session: AsyncClientSession) -> bool:
    """Forgets whatever the user has enrolled or begun. False where there was nothing."""
    done = await TotpEnrolment.get_pymongo_collection().update_one(
        {"_id": user_id, "status": {"$ne": TotpStatus.NONE}},
        {"$set": {**_NO_ENROLMENT, "updated_at": now}},
        session=session,
    )
    return done.matched_count == 1


async def ensure(user_id: str, now: datetime) -> None:
    """There is a document afterwards, of no enrolment if there was none before."""
    await _insert({"_id": user_id, **_NONE}, now)


async def insert_active(user_id: str, secret_id: str, sealed_secret: Sealed, now: datetime) -> None:
    """An app that counts at once, for demo users. Nothing happens where there is a document already."""
    app = {"secret_id": secret_id, "sealed_secret": sealed_secret._asdict(), "activated_at": now}
    await _insert({"_id": user_id, **_NONE, "status": TotpStatus.ACTIVE, **app}, now)


_NONE: Final[Mapping[str, Any]] = {
    "status": TotpStatus.NONE,
    "secret_id": "",
    "sealed_secret": None,
    "last_step": 0,
    "recovery_hashes": [],
    "tries": 0,
    "activated_at": None,
}


async def _insert(row: dict[str, Any], now: datetime) -> None:
    times = {"tries_until": now, "created_at": now, "updated_at": now}
    try:
        await TotpEnrolment.get_pymongo_collection().insert_one({**row, **times})
    except DuplicateKeyError:
        return


async def take_try(user_id: str, statuses: Collection[TotpStatus], now: datetime) -> Enrolment | None:
    """Counts a try before anybody looks at it, so that no number of tries at once is more than TRIES.

    None where there is no such enrolment or no try is left. A try that was right gives all of them back.
    """
    row = await TotpEnrolment.get_pymongo_collection().find_one_and_update(
        {
            "_id": user_id,
            "status": {"$in": list(statuses)},
            "$or": [{"tries": {"$lt": TRIES}}, {"tries_until": {"$lte": now}}],
        },
        [
            {
                "$set": {
                    "tries": {"$cond": [{"$lte": ["$tries_until", now]}, 1, {"$add": ["$tries", 1]}]},
                    "tries_until": {
                        "$cond": [{"$lte": ["$tries_until", now]}, now + TRIES_WINDOW, "$tries_until"],
                    },
                }
            }
        ],
        return_document=ReturnDocument.AFTER,
    )
    return None if row is None else _enrolment(row)


async def give_tries_back(user_id: str, now: datetime) -> None:
    """A try was right: it ends the count of the others."""
    await _change({"_id": user_id}, {}, now, session=None)


class NewApp(NamedTuple):
    """An app that waits for its first code, and the code that is mailed for it."""

    secret_id: str
    sealed_secret: Sealed
    challenge: Challenge


async def start(user_id: str, app: NewApp, now: datetime, *, session: AsyncClientSession) -> bool:
    """False where an app is active, or too many codes were mailed lately.

    Only this try is given back: whoever could begin anew for more tries would guess the mailed code with them.
    """
    has_expired = {"$lte": [{"$ifNull": ["$mails_until", now]}, now]}
    changes = {
        "status": TotpStatus.PENDING.value,
        "secret_id": {"$literal": app.secret_id},
        "sealed_secret": {"$literal": app.sealed_secret._asdict()},
        "challenge": {"$literal": app.challenge._asdict()},
        "last_step": 0,
        "recovery_hashes": [],
        "tries": {"$max": [0, {"$subtract": ["$tries", 1]}]},
        "mails": {"$cond": [has_expired, 1, {"$add": ["$mails", 1]}]},
        "mails_until": {"$cond": [has_expired, now + ENROLMENT_MAILS_WINDOW, "$mails_until"]},
        "updated_at": now,
    }
    condition = {
        "_id": user_id,
        "status": {"$ne": TotpStatus.ACTIVE},
        "$or": [{"mails": {"$not": {"$gte": ENROLMENT_MAILS}}}, {"mails_until": {"$lte": now}}],
    }
    done = await TotpEnrolment.get_pymongo_collection().update_one(condition, [{"$set": changes}], session=session)
    return done.matched_count == 1


class Activation(NamedTuple):
    """`step` is that of the app's first code, which is used up."""

    step: int
    recovery_hashes: Sequence[str]
    confirms_from: datetime | None


async def activate(enrolment: Enrolment, activation: Activation, now: datetime, *, session: AsyncClientSession) -> bool:
    """False where somebody activated it, or began anew, in between."""
    return await _change(
        _unchanged(enrolment, TotpStatus.PENDING),
        {
            "status": TotpStatus.ACTIVE,
            "last_step": activation.step,
            "recovery_hashes": list(activation.recovery_hashes),
            "activated_at": now,
            "confirms_from": activation.confirms_from,
            "challenge": None,
        },
        now,
        session=session,
    )


async def use_up(
    enrolment: Enrolment, proof: Proof, use: str, now: datetime, *, session: AsyncClientSession | None
) -> bool:
    """False where the code is used already."""
    if proof.recovery_hash is None:
        changes = {"last_step": proof.step, "last_use": use}
        return await _change(_unused(enrolment, proof), changes, now, session=session)
    pull = {"recovery_hashes": proof.recovery_hash}
    return await _change(_unused(enrolment, proof), {"last_use": use}, now, pull=pull, session=session)


async def is_last_use(enrolment: Enrolment, use: str, now: datetime) -> bool:
    """Tells whether it was this very request that used the last code up; then its try was a right one."""
    return await _change(_unchanged(enrolment, TotpStatus.ACTIVE) | {"last_use": use}, {}, now, session=None)


async def use_up_for_new_recovery_codes(
    enrolment: Enrolment, proof: Proof, recovery_hashes: Sequence[str], now: datetime, *, session: AsyncClientSession
) -> bool:
    """False where the code is used already; then the recovery codes are as they were."""
    changes: dict[str, Any] = {"recovery_hashes": list(recovery_hashes), "last_use": ""}
    if proof.step is not None:
        changes["last_step"] = proof.step
    return await _change(_unused(enrolment, proof), changes, now, session=session)


async def use_up_and_disable(enrolment: Enrolment, proof: Proof, now: datetime, *, session: AsyncClientSession) -> bool:
    """False where the code is used already; then the enrolment is as it was."""
    return await _change(_unused(enrolment, proof), _NO_ENROLMENT, now, session=session)


async def is_active(user_id: str, *, session: AsyncClientSession) -> bool:
    condition = {"_id": user_id, "status": TotpStatus.ACTIVE}
    return await TotpEnrolment.get_pymongo_collection().find_one(condition, {"_id": 1}, session=session) is not None


async def remove(user_id: str, now: datetime, *, session: AsyncClientSession) -> bool:
    """Without a code, by two admins. False where no app is active."""
    return await _change({"_id": user_id, "status": TotpStatus.ACTIVE}, _NO_ENROLMENT, now, session=session)


def _unchanged(enrolment: Enrolment, status: TotpStatus) -> dict[str, Any]:
    """The very enrolment: a later one has another secret. What that is sealed as may change while keys do."""
    return {"_id": enrolment.user_id, "status": status, "secret_id": enrolment.secret_id}


def _unused(enrolment: Enrolment, proof: Proof) -> dict[str, Any]:
    very = _unchanged(enrolment, TotpStatus.ACTIVE)
    if proof.recovery_hash is not None:
        return very | {"recovery_hashes": proof.recovery_hash}
    return very | {"last_step": {"$lt": proof.step}}


async def _change(
    condition: dict[str, Any],
    changes: dict[str, Any],
    now: datetime,
    *,
    pull: dict[str, Any] | None = None,
    session: AsyncClientSession | None,
) -> bool:
    """A change is a try that was right: it ends the count of the others."""
    update: dict[str, Any] = {"$set": {**changes, "tries": 0, "tries_until": now, "updated_at": now}}
    if pull is not None:
        update["$pull"] = pull
    done = await TotpEnrolment.get_pymongo_collection().update_one(condition, update, session=session)
    return done.matched_count == 1


def _enrolment(row: dict[str, Any]) -> Enrolment:
    return Enrolment(
        user_id=row["_id"],
        status=TotpStatus(row["status"]),
        secret_id=row["secret_id"],
        sealed_secret=None if row["sealed_secret"] is None else Sealed(**row["sealed_secret"]),
        last_step=row["last_step"],
        recovery_hashes=tuple(row["recovery_hashes"]),
        tries=row["tries"],
        tries_until=row["tries_until"],
        activated_at=row["activated_at"],
        last_use=row.get("last_use", ""),
        challenge=None if row.get("challenge") is None else Challenge(**row["challenge"]),
        confirms_from=row.get("confirms_from"),
        mails=row.get("mails", 0),
        mails_until=row.get("mails_until"),
    )
