"""Time zones of the IANA database: in which a wallet's days and months begin."""

from datetime import tzinfo
from enum import StrEnum
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

UTC_NAME = "UTC"
# Where most who hold the currency live; of a country with several zones that of its financial centre. Another one is
# counted in UTC. A user can set their own, and an admin a wallet's.
_HOMES = {
    "AED": "Asia/Dubai",
    "ARS": "America/Argentina/Buenos_Aires",
    "AUD": "Australia/Sydney",
    "BDT": "Asia/Dhaka",
    "BHD": "Asia/Bahrain",
    "BRL": "America/Sao_Paulo",
    "CAD": "America/Toronto",
    "CHF": "Europe/Zurich",
    "CLP": "America/Santiago",
    "CNY": "Asia/Shanghai",
    "COP": "America/Bogota",
    "CZK": "Europe/Prague",
    "DKK": "Europe/Copenhagen",
    "EGP": "Africa/Cairo",
    "EUR": "Europe/Berlin",
    "GBP": "Europe/London",
    "HKD": "Asia/Hong_Kong",
    "HUF": "Europe/Budapest",
    "IDR": "Asia/Jakarta",
    "ILS": "Asia/Jerusalem",
    "INR": "Asia/Kolkata",
    "JPY": "Asia/Tokyo",
    "KES": "Africa/Nairobi",
    "KRW": "Asia/Seoul",
    "KWD": "Asia/Kuwait",
    "LKR": "Asia/Colombo",
    "MXN": "America/Mexico_City",
    "MYR": "Asia/Kuala_Lumpur",
    "NGN": "Africa/Lagos",
    "NOK": "Europe/Oslo",
    "NPR": "Asia/Kathmandu",
    "NZD": "Pacific/Auckland",
    "PHP": "Asia/Manila",
    "PKR": "Asia/Karachi",
    "PLN": "Europe/Warsaw",
    "QAR": "Asia/Qatar",
    "RON": "Europe/Bucharest",
    "SAR": "Asia/Riyadh",
    "SEK": "Europe/Stockholm",
    "SGD": "Asia/Singapore",
    "THB": "Asia/Bangkok",
    "TRY": "Europe/Istanbul",
    "TWD": "Asia/Taipei",
    "UAH": "Europe/Kyiv",
    "USD": "America/New_York",
    "VND": "Asia/Ho_Chi_Minh",
    "ZAR": "Africa/Johannesburg",
}


# For clocks that nobody has set.
_NO_PLACE = "Factory"


class ZoneSource(StrEnum):
    """Where a wallet's zone comes from."""

    WALLET = "wallet"
    USER = "user"
    CURRENCY = "currency"
    DEFAULT = "default"


def zone_named(name: str) -> tzinfo:
    return ZoneInfo(name)


def home_zone_name(currency: str) -> str:
    return _HOMES.get(currency, UTC_NAME)


def has_home_zone(currency: str) -> bool:
    return currency in _HOMES


def is_zone_name(name: str) -> bool:
    """Tells whether the database lists it: a name as Asia/Kolkata, or a former name such as Asia/Calcutta.

    Which files a machine has beside those (localtime, posixrules, right/…) does not matter: they mean another time on
    each machine, or other seconds.
    """
    return name in _known_names()


@cache
def _known_names() -> frozenset[str]:
    listed = resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8").split()
    return frozenset(listed) - {_NO_PLACE}
