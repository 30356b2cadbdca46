"""E-mail addresses: one spelling for each, whichever way it is read."""

import unicodedata

import pytest
from email_validator import validate_email
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidFields
from service.services import users
from service.services.users import EMAIL_LIMIT_BYTES, normal_email

_WORDS = st.text("abcXYZ019_+-", min_size=1, max_size=8)
_LABELS = st.text("abcXYZ019-", min_size=1, max_size=8)


class TestAPlainAddress:
    @given(st.lists(_WORDS, min_size=1, max_size=3), st.lists(_LABELS, min_size=1, max_size=4))
    def test_is_read_as_the_library_reads_it(self, words: list[str], labels: list[str]) -> None:
        email = f"{'.'.join(words)}@{'.'.join(labels)}"
        if users._PLAIN_EMAIL.fullmatch(email) is None:
            return
        checked = validate_email(email, check_deliverability=False, globally_deliverable=False)
        assert normal_email(email) == unicodedata.normalize("NFC", checked.normalized.lower())

    @pytest.mark.parametrize("email", ["Asha@Example.COM", "a.b+c_d-e@mail.example.co.uk", "x@demo.test", "1@2.com"])
    def test_is_most_of_them(self, email: str) -> None:
        assert users._PLAIN_EMAIL.fullmatch(email) is not None
        assert normal_email(email) == email.lower()

    @pytest.mark.parametrize("email", ["a@xn--bcher-kva.example", "a@b", "a@-b.com", "a..b@c.com", "a@b.1", "ä@b.com"])
    def test_is_none_of_these(self, email: str) -> None:
        assert users._PLAIN_EMAIL.fullmatch(email) is None


class TestALongAddress:
    def test_is_refused_by_its_bytes_before_anything_reads_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(users, "validate_email", None)
        for email in ("a@" + "漢" * 84 + ".com", "a" * 250 + "@b.com"):
            assert len(email.encode()) > EMAIL_LIMIT_BYTES
            with pytest.raises(InvalidFields):
                normal_email(email)
