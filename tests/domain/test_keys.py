"""Keys by purpose: HKDF as the standard has it, and no two alike."""

import hmac
from hashlib import sha256

from service.domain.keys import KeyPurpose, derive_key


class TestDeriveKey:
    def test_is_hkdf_with_the_purpose_as_info(self) -> None:
        root = bytes(range(32))
        extracted = hmac.digest(bytes(32), root, sha256)
        for purpose in KeyPurpose:
            assert derive_key(root, purpose) == hmac.digest(extracted, purpose.encode() + b"\x01", sha256)

    def test_gives_each_purpose_and_each_root_another_key(self) -> None:
        roots = (bytes(32), bytes(31) + b"\x01")
        assert len({derive_key(root, purpose) for root in roots for purpose in KeyPurpose}) == 2 * len(KeyPurpose)
