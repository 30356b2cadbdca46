"""The fields that requests of all kinds have in common, and what is right in them."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from service.controllers.requests import StrictModel
from service.controllers.schemas import InSchema
from service.domain.money import EXPONENTS, MAX_AMOUNT_MINOR, is_currency
from service.domain.time_zones import is_zone_name

_METADATA_LIMIT = 20


def _refuse_other_than_integer(value: Any) -> Any:  # noqa: ANN401 anything may come
    # bool is an int to Python, and pydantic's own message would not say what to send.
    if type(value) is not int or not 1 <= value <= MAX_AMOUNT_MINOR:
        raise PydanticCustomError(
            "invalid_amount",
            "Send a whole number of minor units from 1 to 9007199254740991, e.g. 10050 for 100.50",
        )
    return value


def _known_currency(code: str) -> str:
    if not is_currency(code):
        raise PydanticCustomError("unknown_currency", "Send an ISO 4217 code in capitals, e.g. INR")
    return code


def _known_currency_or_points(code: str) -> str:
    if code not in EXPONENTS:
        raise PydanticCustomError("unknown_currency", "Send an ISO 4217 code in capitals, e.g. INR, or PTS for points")
    return code


def _known_zone(name: str) -> str:
    if not is_zone_name(name):
        raise PydanticCustomError("unknown_time_zone", "Send a name of the IANA time zone database, e.g. Asia/Kolkata")
    return name


def printable(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("not_printable", "Control characters are not allowed")
    return text


Amount = Annotated[
    int,
    # Before the validator that it is wrapped in: after it, the limits would not stand in the document.
    Field(ge=1, le=MAX_AMOUNT_MINOR),
    BeforeValidator(_refuse_other_than_integer),
    Field(description="Minor units: 10050 is 100.50 INR", examples=[10000]),
]
Currency = Annotated[
    str,
    AfterValidator(_known_currency),
    Field(description="ISO 4217", examples=["INR"]),
    InSchema(format="iso-4217", minLength=3, maxLength=3),
]
ZoneName = Annotated[
    str,
    Field(min_length=1, max_length=64, examples=["Asia/Kolkata"]),
    AfterValidator(_known_zone),
    InSchema(format="iana-time-zone"),
]
AnyCurrency = Annotated[
    str,
    AfterValidator(_known_currency_or_points),
    Field(description="ISO 4217, or PTS for points", examples=["INR"]),
    InSchema(format="iso-4217-or-pts", minLength=3, maxLength=3),
]
Account = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._:@/-]{4,63}$",
        description="The account at the bank",
        examples=["bank-account-0001"],
    ),
]


def _no_operator(key: str) -> str:
    # `$ref` and `$id` would come back from the database as a reference instead of as what was sent.
    if key.startswith("$"):
        raise PydanticCustomError("reserved_key", "Keys must not begin with $")
    return key


# What isprintable() takes, as a pattern: of the separators only the plain space.
_PRINTABLE = r"[^\p{C}\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]"
_VISIBLE = r"[^\p{C}\p{Z}]"
Printable = (AfterValidator(printable), InSchema(pattern=f"^{_PRINTABLE}*$"))

_Label = Annotated[str, Field(min_length=1, max_length=64), *Printable]
_Key = Annotated[_Label, AfterValidator(_no_operator)]
_Text = Annotated[str, Field(max_length=256), *Printable]
_Metadata = Annotated[
    dict[_Key, _Text],
    Field(max_length=_METADATA_LIMIT),
    InSchema(
        propertyNames={"minLength": 1, "maxLength": 64, "pattern": f"^(?!\\$){_PRINTABLE}*$"},
        additionalProperties={"type": "string", "maxLength": 256, "pattern": f"^{_PRINTABLE}*$"},
    ),
]
PrintableAndVisible = (
    Field(pattern=r"\S"),
    AfterValidator(printable),
    InSchema(pattern=f"^{_PRINTABLE}*{_VISIBLE}{_PRINTABLE}*$"),
)
Reason = Annotated[
    str,
    Field(min_length=1, max_length=256, description="Why: it stays in the audit events"),
    *PrintableAndVisible,
]


class NotedRequest(StrictModel):
    """What people may write on whatever moves their money."""

    category: Annotated[_Label | None, Field(examples=["rent"])] = None
    description: Annotated[_Text | None, Field(examples=["October"])] = None
    metadata: Annotated[_Metadata, Field(default_factory=dict)]
