"""Sealing, without a database: what opens where, and under which key."""

import pytest

from service.domain.sealed import NONCE_BYTES, Keyring, Sealed, SealedField, Unreadable

_OLD, _NEW = bytes(range(32)), bytes(range(32, 64))
_NONCE = b"n" * NONCE_BYTES
_ACCOUNT = "bank-account-0001"


def seal(keyring: Keyring, text: str = _ACCOUNT, document_id: str = "wdr_1") -> Sealed:
    return keyring.seal(text, SealedField.ACCOUNT, document_id, _NONCE)


class TestSealed:
    def test_opens_in_its_place_and_shows_nothing(self) -> None:
        sealed = seal(Keyring([_OLD]))
        assert _ACCOUNT.encode() not in sealed.box
        assert Keyring([_OLD]).open(sealed, SealedField.ACCOUNT, "wdr_1") == _ACCOUNT

    @pytest.mark.parametrize(
        ("field", "document_id"),
        [(SealedField.ACCOUNT, "wdr_2"), (SealedField.VOUCHER_CODE, "wdr_1"), (SealedField.ACCOUNT, "")],
    )
    def test_opens_in_no_other_document_or_field(self, field: SealedField, document_id: str) -> None:
        keyring = Keyring([_OLD])
        with pytest.raises(Unreadable):
            keyring.open(seal(keyring), field, document_id)

    @pytest.mark.parametrize("case", ["one bit", "cut off", "empty", "another nonce"])
    def test_that_is_damaged_opens_nowhere(self, case: str) -> None:
        keyring = Keyring([_OLD])
        key_id, box = seal(keyring)
        damaged = {
            "one bit": box[:-1] + bytes([box[-1] ^ 1]),
            "cut off": box[:20],
            "empty": b"",
            "another nonce": b"m" * NONCE_BYTES + box[NONCE_BYTES:],
        }
        with pytest.raises(Unreadable):
            keyring.open(Sealed(key_id, damaged[case]), SealedField.ACCOUNT, "wdr_1")

    def test_is_another_text_in_each_place_even_with_one_nonce(self) -> None:
        keyring = Keyring([_OLD])
        first, second = (seal(keyring, document_id=document_id).box for document_id in ("wdr_1", "wdr_2"))
        # The stream itself is another one: to repeat a nonce in two places would give nothing away.
        assert first[NONCE_BYTES : NONCE_BYTES + len(_ACCOUNT)] != second[NONCE_BYTES : NONCE_BYTES + len(_ACCOUNT)]


class TestKeyring:
    def test_seals_with_the_current_key_and_opens_with_the_earlier_too(self) -> None:
        sealed = seal(Keyring([_OLD]))
        both = Keyring([_NEW, _OLD])
        assert both.open(sealed, SealedField.ACCOUNT, "wdr_1") == _ACCOUNT
        assert seal(both).key_id == both.key_id == Keyring([_NEW]).key_id
        assert both.earlier_key_ids == (sealed.key_id,)

    def test_without_the_key_opens_nothing_and_names_it(self) -> None:
        sealed = seal(Keyring([_OLD]))
        with pytest.raises(Unreadable, match=sealed.key_id):
            Keyring([_NEW]).open(sealed, SealedField.ACCOUNT, "wdr_1")

    def test_that_holds_one_key_twice_has_no_earlier_one(self) -> None:
        assert Keyring([_OLD, _OLD]).earlier_key_ids == ()


class TestFingerprints:
    def test_are_the_same_for_the_same_and_name_their_key(self) -> None:
        old, new, both = Keyring([_OLD]), Keyring([_NEW]), Keyring([_NEW, _OLD])
        assert both.fingerprints(b"1") == (*new.fingerprints(b"1"), *old.fingerprints(b"1"))
        assert old.fingerprints(b"1") != old.fingerprints(b"2")
        assert new.fingerprints(b"1")[0].startswith(f"{new.key_id}:")
