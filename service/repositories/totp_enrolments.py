"""Queries on `totp_enrolments`. Every change is one compare-and-set: of two who use one code, one finds no match."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from service.documents import TotpEnrolment
from service.domain.sealed import Sealed
from service.domain.totp import TRIES, TRIES_WINDOW, Enrolment, Proof, TotpStatus


async def find(user_id: str) -> Enrolment | None:
    row = await TotpEnrolment.get_pymongo_collection().find_one({"_id": user_id})
    return None if row is None else _enrolment(row)


async def ensure(user_id: str, now: datetime) -> None:
    """There is a document afterwards, of no enrolment if there was none before."""
    try:
        await TotpEnrolment.get_pymongo_collection().insert_one(
            {
                "_id": user_id,
                "status": TotpStatus.NONE,
                "secret_id": "",
                "sealed_secret": None,
                "last_step": 0,
                "recovery_hashes": [],
                "tries": 0,
                "tries_until": now,
                "created_at": now,
                "updated_at": now,
                "activated_at": None,
            }
        )
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


async def start(user_id: str, secret_id: str, sealed_secret: Sealed, now: datetime) -> bool:
    """A new secret that waits for its first code. False where one is active."""
    return await _change(
        {"_id": user_id, "status": {"$ne": TotpStatus.ACTIVE}},
        {
            "status": TotpStatus.PENDING,
            "secret_id": secret_id,
            "sealed_secret": sealed_secret._asdict(),
            "last_step": 0,
            "recovery_hashes": [],
        },
        now,
    )


async def activate(enrolment: Enrolment, step: int, recovery_hashes: Sequence[str], now: datetime) -> bool:
    """False where somebody activated it, or began anew, in between."""
    return await _change(
        _unchanged(enrolment, TotpStatus.PENDING),
        {
            "status": TotpStatus.ACTIVE,
            "last_step": step,
            "recovery_hashes": list(recovery_hashes),
            "activated_at": now,
        },
        now,
    )


async def use_up(enrolment: Enrolment, proof: Proof, use: str, now: datetime) -> bool:
    """False where the code is used already."""
    if proof.recovery_hash is None:
        return await _change(_unused(enrolment, proof), {"last_step": proof.step, "last_use": use}, now)
    pull = {"recovery_hashes": proof.recovery_hash}
    return await _change(_unused(enrolment, proof), {"last_use": use}, now, pull=pull)


async def is_last_use(enrolment: Enrolment, use: str, now: datetime) -> bool:
    """Tells whether it was this very request that used the last code up; then its try was a right one."""
    return await _change(_unchanged(enrolment, TotpStatus.ACTIVE) | {"last_use": use}, {}, now)


async def use_up_for_new_recovery_codes(
    enrolment: Enrolment, proof: Proof, recovery_hashes: Sequence[str], now: datetime
) -> bool:
    """False where the code is used already; then the recovery codes are as they were."""
    changes: dict[str, Any] = {"recovery_hashes": list(recovery_hashes), "last_use": ""}
    if proof.step is not None:
        changes["last_step"] = proof.step
    return await _change(_unused(enrolment, proof), changes, now)


async def use_up_and_disable(enrolment: Enrolment, proof: Proof, now: datetime) -> bool:
    """False where the code is used already; then the enrolment is as it was."""
    nothing: dict[str, Any] = {
        "status": TotpStatus.NONE,
        "secret_id": "",
        "sealed_secret": None,
        "recovery_hashes": [],
        "activated_at": None,
        "last_use": "",
    }
    return await _change(_unused(enrolment, proof), nothing, now)


def _unchanged(enrolment: Enrolment, status: TotpStatus) -> dict[str, Any]:
    """The very enrolment: a later one has another secret. What that is sealed as may change while keys do."""
    return {"_id": enrolment.user_id, "status": status, "secret_id": enrolment.secret_id}


def _unused(enrolment: Enrolment, proof: Proof) -> dict[str, Any]:
    very = _unchanged(enrolment, TotpStatus.ACTIVE)
    if proof.recovery_hash is not None:
        return very | {"recovery_hashes": proof.recovery_hash}
    return very | {"last_step": {"$lt": proof.step}}


async def _change(
    condition: dict[str, Any], changes: dict[str, Any], now: datetime, pull: dict[str, Any] | None = None
) -> bool:
    """A change is a try that was right: it ends the count of the others."""
    update: dict[str, Any] = {"$set": {**changes, "tries": 0, "tries_until": now, "updated_at": now}}
    if pull is not None:
        update["$pull"] = pull
    done = await TotpEnrolment.get_pymongo_collection().update_one(condition, update)
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
    )
