"""Time zones of the IANA database: in which a wallet's days and months begin."""

from datetime import tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

UTC_NAME = "UTC"
# Where most who hold the currency live; of a country with several zones that of its financial centre. Another one is
# counted in UTC, and an admin can set a wallet's own.
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


def zone_of(currency: str, own: str | None = None) -> tzinfo:
    """The zone of a wallet: its own, or that of its currency."""
    return ZoneInfo(own or home_zone_name(currency))


def home_zone_name(currency: str) -> str:
    return _HOMES.get(currency, UTC_NAME)


def is_zone_name(name: str) -> bool:
    """Whether the database knows it: a name as Asia/Kolkata."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # A path that leads elsewhere is a ValueError, one that is a directory an OSError.
        return False
    return True
