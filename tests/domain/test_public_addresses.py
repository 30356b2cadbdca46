"""Which addresses are public: by the registries' words, and by what Python calls global."""

import random
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from service.domain.public_addresses import is_public


class TestIsPublic:
    @pytest.mark.parametrize("text", ["1.1.1.1", "93.184.216.34", "99.255.255.255", "100.128.0.0", "172.32.0.1"])
    def test_takes_what_is_of_the_internet(self, text: str) -> None:
        assert is_public(ip_address(text))

    @pytest.mark.parametrize("text", ["2606:2800:21f:cb07:6820:80da:af6b:8b2c", "2a00:1450:4001:80e::200e"])
    def test_takes_it_in_ipv6(self, text: str) -> None:
        assert is_public(ip_address(text))

    def test_takes_no_zone(self) -> None:
        assert not is_public(IPv6Address("2a00:1450:4001:80e::200e%eth0"))

    def test_takes_nothing_of_what_is_denied(self) -> None:
        denied = [ip_network("93.184.216.0/24"), ip_network("2a00::/16")]
        assert not is_public(ip_address("93.184.216.34"), denied)
        assert not is_public(ip_address("2a00:1450:4001:80e::200e"), denied)
        assert is_public(ip_address("93.184.217.34"), denied)

    def test_takes_nothing_that_python_does_not_call_global(self) -> None:
        """Another reading of the registries: what it refuses, we refuse."""
        drawn = random.Random(20260224)  # noqa: S311 no secret
        for _ in range(20_000):
            for address in (IPv4Address(drawn.getrandbits(32)), IPv6Address(drawn.getrandbits(128))):
                assert address.is_global or not is_public(address), address
            # Where the special ones are close together.
            near = IPv6Address((0x2001 << 112) | (drawn.getrandbits(12) << 100) | drawn.getrandbits(96))
            assert near.is_global or not is_public(near), near
