"""Whose address a request is counted under, and who may say so."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import pytest

from service.controllers.client_address import client_address

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def address_of(peer: str | None, *forwarded: str, trusted: tuple[IPv4Network | IPv6Network, ...] = PROXIES) -> str:
    scope: dict[str, Any] = {
        "client": None if peer is None else (peer, 4711),
        "headers": [(b"x-forwarded-for", line.encode("latin-1")) for line in forwarded],
    }
    return client_address(scope, trusted)


class TestWithoutTrustedProxies:
    def test_the_header_is_not_looked_at(self) -> None:
        assert address_of("10.0.0.1", "203.0.113.7", trusted=()) == "10.0.0.1"

    def test_a_unix_socket_has_no_address(self) -> None:
        assert address_of(None, "203.0.113.7", trusted=()) == "unknown"
        assert address_of("", trusted=()) == "unknown"


class TestBehindTrustedProxies:
    def test_takes_the_nearest_that_is_not_trusted(self) -> None:
        assert address_of("10.0.0.1", "198.51.100.9, 203.0.113.7, 10.9.9.9") == "203.0.113.7"

    def test_what_a_client_puts_in_front_changes_nothing(self) -> None:
        assert {address_of("10.0.0.1", f"198.51.100.{number}, 203.0.113.7") for number in range(50)} == {"203.0.113.7"}

    def test_lines_of_the_header_are_one_list(self) -> None:
        assert address_of("10.0.0.1", "198.51.100.9", "203.0.113.7", "10.9.9.9") == "203.0.113.7"

    def test_one_that_is_not_trusted_cannot_name_another(self) -> None:
        assert address_of("203.0.113.1", "198.51.100.9") == "203.0.113.1"

    def test_where_all_are_trusted_it_is_the_farthest(self) -> None:
        assert address_of("10.0.0.1", "10.0.0.3, 10.0.0.2") == "10.0.0.3"

    def test_a_unix_socket_is_a_proxy_of_this_machine(self) -> None:
        assert address_of(None, "203.0.113.7") == "203.0.113.7"
        assert address_of(None) == "unknown"

    @pytest.mark.parametrize(
        "line",
        ["", ",", "garbage", "203.0.113.7, unknown", "999.1.1.1", "1.2.3.4.5", "\xff\xfe", "[", "::1::", "1" * 5000,
         "203.0.113.7," * 3000 + "x", "10.0.0.2%0a", "٣.٣.٣.٣".encode().decode("latin-1")],
    )  # fmt: skip
    def test_garbage_counts_under_who_passed_it_on(self, line: str) -> None:
        assert address_of("10.0.0.1", line) == "10.0.0.1"

    def test_a_port_is_no_part_of_an_address(self) -> None:
        assert address_of("10.0.0.1", "203.0.113.7:5151") == "203.0.113.7"
        assert address_of("10.0.0.1", "[2001:db8::7]:5151") == "2001:db8::/64"

    def test_only_so_many_hops_are_read(self) -> None:
        assert address_of("10.0.0.1", "203.0.113.7" + ", 10.0.0.2" * 1000) == "10.0.0.2"


class TestWhatCountsAsOne:
    def test_an_ipv6_network_of_64_bits_does(self) -> None:
        found = {address_of(f"2001:db8:1:2::{number:x}", trusted=()) for number in range(100)}
        assert found == {"2001:db8:1:2::/64"}

    def test_an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client(self) -> None:
        assert address_of("::ffff:203.0.113.7", trusted=()) == "203.0.113.7"
        assert address_of("::ffff:10.0.0.1", "203.0.113.9") == "203.0.113.9"

    def test_a_zone_is_no_part_of_an_address(self) -> None:
        assert address_of("fe80::1%eth0", trusted=()) == "fe80::/64"
