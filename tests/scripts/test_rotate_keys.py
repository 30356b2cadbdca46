"""Changing the encryption key: `scripts.rotate_keys`, on a database of its own."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import SecretStr
from pymongo import AsyncMongoClient

from scripts.rotate_keys import PLACES, Resealed, reseal, take_census
from service.database import Database, Databases, set_up
from service.documents import TotpEnrolment, WebhookEndpointDocument
from service.domain.identifiers import Prefix, new_id
from service.domain.sealed import Keyring, Sealed, SealedField, Unreadable
from service.domain.vouchers import Redemption
from service.domain.webhook_endpoints import EndpointStatus, WebhookEndpoint
from service.repositories.records import HOMES, to_row
from service.services.sealing import keyring_of, seal
from service.settings import Settings
from tests.commands import run_module
from tests.domain.test_rewards import make_withdrawal
from tests.servers import Servers, make_settings

_NEW_KEY = "eHh4" * 10 + "eHg="
_NOW = datetime(2026, 2, 24, 12, 34, 56, tzinfo=UTC)
_BY_FIELD = {place.field: place for place in PLACES}
_WITHDRAWALS = PLACES[1]


@pytest.fixture(scope="module")
async def old(servers: Servers) -> Settings:
    settings = make_settings(servers)
    await set_up(settings)
    return settings


@pytest.fixture(scope="module")
def changing(old: Settings) -> Settings:
    """As everything is started while keys are changed."""
    return old.model_copy(update={"encryption_key": SecretStr(_NEW_KEY), "encryption_key_previous": old.encryption_key})


@pytest.fixture
async def database(old: Settings, databases: Databases) -> Database:
    """Of the same server, as the service's own user sees it."""
    return databases.client[old.database]


async def insert_withdrawal(database: Database, settings: Settings, account: str) -> str:
    withdrawal_id = new_id(Prefix.WITHDRAWAL)
    sealed = seal(settings, account, SealedField.ACCOUNT, withdrawal_id)
    await database["withdrawals"].insert_one(to_row(make_withdrawal(id=withdrawal_id, account_sealed=sealed)))
    return withdrawal_id


async def insert_others(database: Database, settings: Settings) -> dict[SealedField, str]:
    """A redemption, an app, and an answer that is kept."""
    redemption_id, user_id = new_id(Prefix.REDEMPTION), new_id(Prefix.USER)
    code = seal(settings, "A-CODE", SealedField.VOUCHER_CODE, redemption_id)
    redemption = Redemption(redemption_id, user_id, "wal_1", "vch_1", "Tea", 100, code, "txn_1", None, _NOW)
    await database["redemptions"].insert_one(to_row(redemption))
    enrolment: dict[str, Any] = {
        "_id": user_id,
        "status": "active",
        "secret_id": "1",
        "sealed_secret": seal(settings, "SECRET", SealedField.TOTP_SECRET, user_id)._asdict(),
        "last_step": 5,
        "recovery_hashes": ["a" * 64],
        "tries": 2,
        "tries_until": _NOW,
    }
    await database["totp_enrolments"].insert_one(enrolment)
    endpoint_id = new_id(Prefix.WEBHOOK_ENDPOINT)
    endpoint = WebhookEndpoint(
        id=endpoint_id,
        user_id=user_id,
        slot=0,
        url="https://shop.example/",
        event_types=None,
        description=None,
        status=EndpointStatus.ACTIVE,
        secret_sealed=seal(settings, "whsec_new", SealedField.WEBHOOK_SECRET, endpoint_id),
        created_at=_NOW,
        updated_at=_NOW,
        tried_from=_NOW,
        previous_secret_sealed=seal(settings, "whsec_old", SealedField.WEBHOOK_SECRET, endpoint_id),
        previous_secret_until=_NOW,
    )
    await database["webhook_endpoints"].insert_one(to_row(endpoint))
    answer: dict[str, Any] = {
        "_id": f"{user_id}:key",
        "fingerprint": keyring_of(settings).fingerprints(b"request")[0],
        "status_code": 202,
        "body": b"{}",
        "created_at": _NOW,
        "expires_at": datetime.now(UTC) + timedelta(days=7),
    }
    await database["idempotency_keys"].insert_one(answer)
    return {
        SealedField.VOUCHER_CODE: redemption_id,
        SealedField.TOTP_SECRET: user_id,
        SealedField.WEBHOOK_SECRET: endpoint_id,
    }


async def kept(database: Database, field: SealedField, document_id: str) -> Sealed:
    place = _WITHDRAWALS if field is SealedField.ACCOUNT else _BY_FIELD[field]
    row = await database[place.collection].find_one({"_id": document_id})
    assert row is not None
    return Sealed(**row[place.name])


async def reseal_withdrawals(database: Database, keyring: Keyring) -> Resealed:
    return await reseal(database, keyring, _WITHDRAWALS, dry_run=False, on_progress=lambda _rows: None)


def _sealed_fields(record: Any) -> list[str]:
    return [name for name, hint in get_type_hints(record).items() if hint is Sealed or Sealed in get_args(hint)]


class TestPlaces:
    def test_are_all_that_there_are(self) -> None:
        """What the script does not know would be lost with the previous key."""
        declared: list[tuple[Any, str]] = [
            (home.document, field) for home in HOMES.values() for field in _sealed_fields(home.record)
        ]
        in_documents = {(document.Settings.name, field) for document, field in declared}
        in_documents.add((TotpEnrolment.Settings.name, "sealed_secret"))
        in_documents |= {(WebhookEndpointDocument.Settings.name, field) for field in _sealed_fields(WebhookEndpoint)}
        assert {(place.collection, place.name) for place in PLACES} == in_documents
        assert {place.field for place in PLACES} == set(SealedField)


class TestRotateKeys:
    async def test_seals_all_anew_until_nothing_needs_the_previous_key(
        self, database: Database, old: Settings, changing: Settings, tmp_path: Path
    ) -> None:
        withdrawal_ids = [await insert_withdrawal(database, old, f"account-{number}") for number in range(3)]
        others = await insert_others(database, old)
        alone = {"WALLET_ENCRYPTION_KEY": _NEW_KEY}
        both = alone | {"WALLET_ENCRYPTION_KEY_PREVIOUS": old.encryption_key.get_secret_value()}
        before = await take_census(database, keyring_of(changing))

        tried = await run_module(old, tmp_path, "scripts.rotate_keys", "--dry-run", **both)
        assert tried.status == 1, tried.err
        assert await take_census(database, keyring_of(changing)) == before

        done = await run_module(old, tmp_path, "scripts.rotate_keys", **both)
        # Nothing is sealed under it any more; one answer still hangs on it.
        assert "1 answers are kept under an earlier key" in done.out
        assert done.status == 1, done.err
        new_key = Keyring([changing.root_keys[0]])
        for number, withdrawal_id in enumerate(withdrawal_ids):
            sealed = await kept(database, SealedField.ACCOUNT, withdrawal_id)
            assert new_key.open(sealed, SealedField.ACCOUNT, withdrawal_id) == f"account-{number}"
        for field, text in ((SealedField.VOUCHER_CODE, "A-CODE"), (SealedField.TOTP_SECRET, "SECRET")):
            assert new_key.open(await kept(database, field, others[field]), field, others[field]) == text
        endpoint_id = others[SealedField.WEBHOOK_SECRET]
        row = await database["webhook_endpoints"].find_one({"_id": endpoint_id}) or {}
        for name, text in (("secret_sealed", "whsec_new"), ("previous_secret_sealed", "whsec_old")):
            assert new_key.open(Sealed(**row[name]), SealedField.WEBHOOK_SECRET, endpoint_id) == text
        enrolment = await database["totp_enrolments"].find_one({"_id": others[SealedField.TOTP_SECRET]})
        assert enrolment is not None
        assert (enrolment["secret_id"], enrolment["tries"], enrolment["last_step"]) == ("1", 2, 5)

        with_answer = await run_module(old, tmp_path, "scripts.rotate_keys", "--check", **both)
        assert with_answer.status == 1
        await database["idempotency_keys"].update_many({}, {"$set": {"fingerprint": "of nobody's"}})
        without = await run_module(old, tmp_path, "scripts.rotate_keys", "--check", **both)
        assert without.status == 0, without.out
        assert "can be dropped" in without.out

    async def test_leaves_alone_what_somebody_else_has_changed_meanwhile(
        self, database: Database, old: Settings, changing: Settings, servers: Servers
    ) -> None:
        withdrawal_id = await insert_withdrawal(database, old, "first")
        theirs = seal(old, "second", SealedField.ACCOUNT, withdrawal_id)
        with_another: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(servers.mongo.admin_url)

        class Slow:
            """The database, in which somebody writes between the script's reading and its writing."""

            def __getitem__(self, name: str) -> Any:
                collection = database[name]

                class Collection:
                    find = collection.find

                    async def bulk_write(self, updates: Any, **options: Any) -> Any:
                        change = {"$set": {"account_sealed": theirs._asdict()}}
                        await with_another[old.database][name].update_one({"_id": withdrawal_id}, change)
                        return await collection.bulk_write(updates, **options)

                return Collection()

        overtaken = await reseal_withdrawals(Slow(), keyring_of(changing))  # type: ignore[arg-type]  # as much of a database as it asks for
        await with_another.close()
        assert overtaken == Resealed(done=0, overtaken=1, unreadable=[])
        assert await kept(database, SealedField.ACCOUNT, withdrawal_id) == theirs
        assert await reseal_withdrawals(database, keyring_of(changing)) == Resealed(1, 0, [])

    async def test_names_what_no_key_opens_and_leaves_it_as_it_is(
        self, database: Database, old: Settings, changing: Settings, tmp_path: Path
    ) -> None:
        foreign = old.model_copy(update={"encryption_key": SecretStr("A" * 43 + "=")})
        withdrawal_id = await insert_withdrawal(database, foreign, "lost")
        before = await kept(database, SealedField.ACCOUNT, withdrawal_id)
        ended = await run_module(old, tmp_path, "scripts.rotate_keys", WALLET_ENCRYPTION_KEY=_NEW_KEY)
        assert ended.status == 1
        assert withdrawal_id in ended.out
        after = await kept(database, SealedField.ACCOUNT, withdrawal_id)
        assert after == before
        with pytest.raises(Unreadable):
            keyring_of(changing).open(after, SealedField.ACCOUNT, withdrawal_id)
        await database["withdrawals"].update_one(
            {"_id": withdrawal_id},
            {"$set": {"account_sealed": seal(changing, "found", SealedField.ACCOUNT, withdrawal_id)._asdict()}},
        )

    async def test_goes_through_more_than_one_batch(
        self, database: Database, old: Settings, changing: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("scripts.rotate_keys._BATCH", 2)
        for number in range(5):
            await insert_withdrawal(database, old, f"account-{number}")
        assert await reseal_withdrawals(database, keyring_of(changing)) == Resealed(5, 0, [])
