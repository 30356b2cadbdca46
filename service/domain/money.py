"""Money: integers in minor units of an ISO 4217 currency, never a float."""

import iso4217

# The largest integer that every JSON reader carries exactly (RFC 8259, section 6).
MAX_AMOUNT_MINOR = 2**53 - 1

# Minor-unit digits by currency code, e.g. INR 2, JPY 0, KWD 3. Codes without minor units
# (metals, testing, special drawing rights) are not money that a wallet can hold.
EXPONENTS: dict[str, int] = {
    currency.code: currency.exponent for currency in iso4217.Currency if currency.exponent is not None
}
# The document that the library has read them from, which it keeps: half a megabyte in each process.
iso4217.raw_xml.clear()

# Points: a wallet like any other, but no money. They are earned and redeemed, never paid in, paid out or exchanged.
POINTS = "PTS"
EXPONENTS[POINTS] = 0

# Codes with minor units that nobody holds money in: funds, indexed units of account, settlement between central banks.
# They stay known, since wallets in them may be there from before.
_NO_ORDINARY_MONEY = frozenset({"BOV", "CHE", "CHW", "CLF", "COU", "MXV", "USN", "UYI", "UYW", "XAD"})
# What is dealt in unless the settings name something else.
ORDINARY_CURRENCIES = frozenset(EXPONENTS) - _NO_ORDINARY_MONEY - {POINTS}


def is_currency(code: str) -> bool:
    """Tells whether it is money: a currency of ISO 4217."""
    return code in EXPONENTS and code != POINTS


def format_minor(amount_minor: int, currency: str) -> str:
    """For people: 10050 INR → '100.50 INR'."""
    return f"{to_decimal(amount_minor, currency)} {currency}"


def to_decimal(amount_minor: int, currency: str) -> str:
    """In major units: 10050 INR → '100.50', 10050 JPY → '10050'."""
    digits = EXPONENTS[currency]
    if digits == 0:
        return str(amount_minor)
    whole, rest = divmod(abs(amount_minor), 10**digits)
    return f"{'-' if amount_minor < 0 else ''}{whole}.{rest:0{digits}d}"
