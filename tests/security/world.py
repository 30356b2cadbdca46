"""People with one of each resource, and what the corpus sends that the OpenAPI document cannot tell.

A new path parameter: add to MAKERS how somebody comes by such an id, and to PRIVATE whose it is. A new field of a body
or a parameter that has neither example nor default: give it an example in its model, or a value in VALUES.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from hashlib import sha256
from typing import Any, Final
from uuid import uuid4

import httpx
import orjson
from fastapi import FastAPI

from service.documents import WALLET_DOCUMENTS, User
from service.domain.identifiers import Prefix, new_id
from service.domain.incidents import Said, SaidEvent
from service.domain.operations import Operation
from service.domain.permissions import KEY_PERMISSIONS, ROLE_PERMISSIONS
from service.domain.returns import return_id_of
from service.domain.wallets import Wallet
from service.ledger.orders import FlagForReview
from service.repositories import records as record_repository
from service.services.checkpoints import take_checkpoint
from service.services.incidents import open_incident
from service.services.returns import apply_return
from service.settings import Settings
from service.startup import Resources
from tests.factories import (
    PASSWORD,
    asking_of,
    bearer,
    change_of,
    make_account,
    make_break,
    make_dead_letter,
    make_email,
    make_voucher,
    make_wallet,
    settlement_of,
)
from tests.security.routes import Field, NothingToSend, Route, example_of

USER, SERVICE, ADMIN = ROLES = ("user", "service", "admin")

# The service's own user may not list them, nor make any other.
COLLECTIONS: Final = tuple(document.Settings.name for document in WALLET_DOCUMENTS)

# Routes whose requests are signed instead of carrying a token: bank_callbacks.py makes them.
SIGNED: Final = frozenset({"POST /webhooks/bank-callback"})

_ABOUT_USERS: Final = "/api/v1/admin/users/{user_id}"

_BALANCE: Final = 1_000_000
_POINTS: Final = 10_000


class Person:
    """Somebody with a role, a funded wallet, and one of each resource, made when it is first asked for."""

    def __init__(self, world: "World", role: str, user: User, wallet: Wallet) -> None:
        self.world, self.role, self.user, self.wallet = world, role, user, wallet
        self.headers = bearer(user, world.settings)
        self._ids: dict[str, str] = {}
        self._made: dict[str, str] = {}

    async def id_of(self, parameter: str) -> str:
        if parameter not in self._ids:
            try:
                make = MAKERS[parameter]
            except KeyError:
                raise NothingToSend(
                    f"no id for the path parameter {{{parameter}}}: tell in MAKERS of tests/security/world.py "
                    "how somebody comes by one, and in PRIVATE whose it is"
                ) from None
            self._ids[parameter] = await make(self)
        return self._ids[parameter]

    async def once(self, name: str, make: "Callable[[Person], Awaitable[str]]") -> str:
        """Made when it is first asked for, and the same from then on."""
        if name not in self._made:
            self._made[name] = await make(self)
        return self._made[name]

    async def ids_for(self, route: Route) -> dict[str, str]:
        ids = {name: await self.id_of(name) for name in route.path_parameters}
        if route.path.startswith(_ABOUT_USERS):
            # Nobody may do to themselves what admins may do to others.
            ids["user_id"] = await self.once("subject", _subject_id)
        return ids

    async def post(self, path: str, **body: Any) -> dict[str, Any]:
        """What has to succeed."""
        headers = {**self.headers, "Idempotency-Key": uuid4().hex}
        answer = await self.world.api.post(f"/api/v1{path}", json=body, headers=headers)
        assert answer.is_success, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def make(self, path: str, **body: Any) -> str:
        return str((await self.post(path, **body))["id"])

    async def body_for(self, route: Route) -> Any:
        """One that the route takes from this person; None where it takes none."""
        if route.body is None:
            return None
        body: dict[str, Any] = {}
        for field in route.fields:
            is_whole = not any(other.path[: len(field.path)] == field.path for other in route.fields if other != field)
            if is_whole and (await self._is_sent(route, field)):
                body = _put_anew(body, field.path, await self.value_of(route, field))
        return body

    async def _is_sent(self, route: Route, field: Field) -> bool:
        """Fields that a body cannot do without, and those that have a value of their own here."""
        return field.is_required or (str(route), str(field)) in VALUES

    async def value_of(self, route: Route, field: Field) -> Any:
        make = VALUES.get((str(route), str(field))) or VALUES.get(field.name)
        if make is not None:
            return await make(self)
        try:
            return deepcopy(example_of(field, route.body))
        except NothingToSend:
            raise NothingToSend(
                f"no value for `{field}` of {route}: give it an example in its model, "
                "or a value in VALUES of tests/security/world.py"
            ) from None

    async def query_for(self, route: Route) -> dict[str, str]:
        """What the route cannot do without."""
        return {
            field.name: str(await self.value_of(route, field))
            for field in route.query
            if field.is_required or (str(route), field.name) in VALUES
        }

    async def state(self) -> dict[str, str]:
        """A digest of what every collection has of this person."""
        return await self.world.digest(self.ids)

    @property
    def ids(self) -> list[str]:
        """Their own, and those of all that was made for them."""
        return [self.user.id, self.wallet.id, *self._ids.values()]


class World:
    """What everybody shares: the sound API that people are made through, staff, and somebody to pay."""

    api: httpx.AsyncClient
    admin: Person
    second_admin: Person
    third: Person

    def __init__(self, app: FastAPI, api: httpx.AsyncClient, routes: Iterable[Route]) -> None:
        self.app, self.api = app, api
        self.routes = list(routes)
        self.resources: Resources = app.state.resources
        self.settings: Settings = self.resources.settings
        self.databases = self.resources.databases
        self._people: dict[tuple[str, str], Person] = {}

    @classmethod
    async def make(cls, app: FastAPI, api: httpx.AsyncClient, routes: Iterable[Route]) -> "World":
        world = cls(app, api, routes)
        world.admin = await world.person(ADMIN)
        world.second_admin = await world.person(ADMIN)
        world.third = await world.person(USER)
        await take_checkpoint(world.databases.client, world.settings)
        return world

    async def person(self, role: str) -> Person:
        """Somebody new."""
        return Person(self, role, *(await make_account(self.databases, balance=_BALANCE, roles=[role])))

    async def someone(self, role: str, name: str) -> Person:
        """The same one each time, by name."""
        if (role, name) not in self._people:
            self._people[role, name] = await self.person(role)
        return self._people[role, name]

    async def caller(self, role: str, name: str) -> Person:
        """`someone`, and somebody new where that one's token is good no longer: some routes end all sessions."""
        person = await self.someone(role, name)
        row = await self.databases.wallet["users"].find_one({"_id": person.user.id}) or {}
        if row.get("token_version") != person.user.token_version:
            del self._people[role, name]
            person = await self.someone(role, name)
        return person

    def token_of_nobody(self, person: Person) -> dict[str, str]:
        """As good as the person's own, for somebody who was never there."""
        return bearer(person.user.model_copy(update={"id": bogus_id(person.user.id)}), self.settings)

    def lowest_role(self, route: Route) -> str:
        """Of those that the route lets in: who has it may do the least. Without a token it is as good as a user."""
        allowed = self.roles_of(route)
        return next(role for role in ROLES if role in allowed)

    @staticmethod
    def roles_of(route: Route) -> frozenset[str]:
        """Who may call it, as it declares."""
        if not route.is_secured:
            return frozenset(ROLES)
        return frozenset(role for role in ROLES if route.permission in ROLE_PERMISSIONS[role])

    async def prepare(self, routes: Iterable[Route], name: str) -> None:
        """Makes whoever goes by that name, and all that they need: from now on nothing changes by itself."""
        for route in routes:
            if str(route) in SIGNED:
                continue
            person = await self.someone(self.lowest_role(route), name)
            await person.ids_for(route)
            await person.query_for(route)
            await person.body_for(route)

    async def state(self) -> dict[str, str]:
        """A digest of what every collection has of anybody here."""
        return await self.digest([one for person in self._people.values() for one in person.ids])

    async def digest(self, ids: Sequence[str]) -> dict[str, str]:
        """Of every collection's documents that are of one of these, or belong to one."""
        wanted = {"$or": [{name: {"$in": list(ids)}} for name in ("_id", "user_id", "wallet_id", "owner_id")]}
        database = self.databases.wallet
        digests = {}
        for name in COLLECTIONS:
            rows = await database[name].find(wanted).sort("_id", 1).to_list()
            digests[name] = sha256(orjson.dumps([repr(row) for row in rows])).hexdigest()
        return digests

    async def counts(self) -> dict[str, int]:
        """How many documents each collection has."""
        database = self.databases.wallet
        return {name: await database[name].estimated_document_count() for name in COLLECTIONS}


def _put_anew(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    """`put`, for a body that is still being built: lists and objects on the way are made."""
    built = deepcopy(body)
    at = built
    for step, following in zip(path, (*path[1:], None), strict=True):
        if isinstance(at, list):
            if not at:
                at.append({})
            at = at[0]
            continue
        if following is None:
            at[step] = value
        else:
            at = at.setdefault(step, [] if following == 0 else {})
    return built


def bogus_id(identifier: str) -> str:
    """One of the same kind and length that nobody has."""
    prefix, separator, rest = identifier.partition("_")
    if not separator:
        return identifier
    return f"{prefix}_{new_id(Prefix.USER)[4:][: len(rest)]}"


async def send(
    api: httpx.AsyncClient,
    route: Route,
    headers: Mapping[str, str],
    *,
    ids: Mapping[str, str],
    query: Mapping[str, Any] | None = None,
    body: Any = None,
    content: bytes | None = None,
    more_headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """One request, under a key of its own where the route takes keys. `content` goes as it is, in place of `body`."""
    sent = {**headers, **(more_headers or {})}
    if route.is_keyed:
        sent.setdefault("Idempotency-Key", uuid4().hex)
    if content is None and route.body is not None:
        content = orjson.dumps({} if body is None else body)
    if content is not None:
        sent.setdefault("Content-Type", "application/json")
    return await api.request(route.method, route.url(ids), params=query or None, content=content, headers=sent)


async def send_valid(api: httpx.AsyncClient, route: Route, person: Person) -> httpx.Response:
    return await send(
        api,
        route,
        person.headers,
        ids=await person.ids_for(route),
        query=await person.query_for(route),
        body=await person.body_for(route),
    )


# How somebody comes by the id of a path parameter.


async def _user_id(person: Person) -> str:
    return person.user.id


async def _wallet_id(person: Person) -> str:
    return person.wallet.id


async def _withdrawal_id(person: Person) -> str:
    return await person.make("/withdrawals", amount=1_000, currency="INR", destination="bank-account-0001")


async def _deposit_id(person: Person) -> str:
    return await person.make("/deposits", amount=1_000, currency="INR", source="bank-account-0001")


async def _transfer_id(person: Person) -> str:
    payer, payee = person, person.world.third
    if person.role == ADMIN:
        # Nobody takes back what they had sent themselves.
        payer, payee = payee, payer
    return await payer.make(
        "/transfers",
        amount=1_000,
        currency="INR",
        from_wallet_id=payer.wallet.id,
        to_wallet_id=payee.wallet.id,
    )


async def _entry_id(person: Person) -> str:
    answer = await person.world.api.get(f"/api/v1/wallets/{person.wallet.id}/transactions", headers=person.headers)
    return str(answer.json()["data"][-1]["id"])


async def _quote_id(person: Person) -> str:
    return await person.make("/quotes", amount=10_000, from_currency="INR", to_currency="USD")


async def _conversion_id(person: Person) -> str:
    owner = person.user
    found = await person.world.api.get("/api/v1/wallets", headers=person.headers)
    if all(wallet["currency"] != "USD" for wallet in found.json()["data"]):
        await make_wallet(person.world.databases, owner, currency="USD")
    return await person.make("/conversions", quote_id=await _quote_id(person))


async def _hold_id(person: Person) -> str:
    return await person.make("/holds", amount=1_000, currency="INR", wallet_id=person.wallet.id)


async def _adjustment_id(person: Person) -> str:
    """By whom it is where they may, else by an admin; of staff on somebody else's wallet."""
    giver, owner = (person, person.world.third) if person.role != USER else (person.world.admin, person)
    order = {"amount": 1_000, "currency": "INR", "reason": "A test needs it"}
    return await giver.make(f"/wallets/{owner.wallet.id}/credits", **order)


async def _reversal_id(person: Person) -> str:
    transfer_id = await _transfer_id(person)
    return await person.world.admin.make(f"/transfers/{transfer_id}/reversal", reason="A test needs it")


async def _operation_id(person: Person) -> str:
    """One that waits for a person: as the worker leaves it where the bank says nothing."""
    # Nobody decides about their own.
    owner = person.world.third if person.role == ADMIN else person
    operation_id = await _withdrawal_id(owner)
    found = await record_repository.find(operation_id, Operation)
    assert found is not None
    await person.world.resources.ledger.change(
        change_of(FlagForReview, found, failure_code="bank_outcome_unknown", failure_message="No outcome"), Operation
    )
    return operation_id


async def _return_id(person: Person) -> str:
    """Of a deposit that is not there any more."""
    ledger = person.world.resources.ledger
    deposit = await record_repository.find(await _deposit_id(person), Operation)
    assert deposit is not None
    await ledger.change(asking_of(deposit), Operation)
    await ledger.change(settlement_of(deposit), Operation)
    said = Said(SaidEvent.RETURNED, None, deposit.amount, deposit.currency, "ret_1", "chargeback", "Taken back")
    await apply_return(deposit, said, ledger)
    return return_id_of(deposit.id)


async def _incident_id(person: Person) -> str:
    said = Said(SaidEvent.SETTLED, "success", 1_000, "INR", "bank_1")
    # Admins say nothing of their own.
    operation_id = await _withdrawal_id(person.world.third if person.role == ADMIN else person)
    return await open_incident(operation_id, said, None, person.world.resources.ledger)


async def _voucher_id(person: Person) -> str:
    return (await make_voucher(person.world.databases)).id


async def _redemption_id(person: Person) -> str:
    found = await person.world.api.get("/api/v1/wallets", headers=person.headers)
    points = [wallet["id"] for wallet in found.json()["data"] if wallet["currency"] == "PTS"]
    wallet_id = points[0] if points else (await make_wallet(person.world.databases, person.user, currency="PTS")).id
    gift = {"amount": _POINTS, "currency": "PTS", "reason": "A test needs it"}
    await person.world.admin.post(f"/wallets/{wallet_id}/credits", **gift)
    return await person.make(f"/vouchers/{await _voucher_id(person)}/redeem")


async def _break_id(_person: Person) -> str:
    return (await make_break()).id


async def _service_id(person: Person) -> str:
    return (await person.world.someone(SERVICE, "with keys")).user.id


async def make_key(world: World, **key: Any) -> dict[str, Any]:
    """One that opens something: confirmed, where it needs two admins."""
    made = await world.admin.post("/admin/api-keys", **key)
    if made["proposal_id"] is not None:
        await world.second_admin.post(f"/admin/proposals/{made['proposal_id']}/approve")
    return made


async def _key_id(person: Person) -> str:
    key = {"user_id": await _service_id(person), "name": "A till", "permissions": sorted(KEY_PERMISSIONS)}
    return str((await make_key(person.world, **key))["id"])


async def _proposal_id(person: Person) -> str:
    roles = {"roles": ["user", "service"], "reason": "A test needs it"}
    path = f"/api/v1/admin/users/{await _subject_id(person)}/roles"
    answer = await person.world.api.put(path, json=roles, headers=person.world.admin.headers)
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    return str(answer.json()["id"])


async def _login(person: Person) -> dict[str, Any]:
    credentials = {"email": person.user.email, "password": PASSWORD}
    answer = await person.world.api.post("/api/v1/auth/login", json=credentials)
    assert answer.is_success, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


async def _session_id(person: Person) -> str:
    await _login(person)
    rows = person.world.databases.wallet["sessions"].find({"user_id": person.user.id}).sort("_id", -1)
    return str((await rows.to_list())[0]["_id"])


async def _refresh_token(person: Person) -> str:
    return str((await _login(person))["refresh_token"])


async def _currency(_person: Person) -> str:
    return "INR"


async def _subject_id(person: Person) -> str:
    return (await person.world.person(USER)).user.id


async def _endpoint_id(person: Person) -> str:
    return await person.make("/webhook-endpoints", url=await _receiver(person))


async def _delivery_id(person: Person) -> str:
    return await person.make(f"/webhook-endpoints/{await person.id_of('endpoint_id')}/test")


async def _first(_person: Person) -> str:
    return "1"


async def _dead_letter_id(person: Person) -> str:
    """Of a row that nothing else waits for."""
    return (await make_dead_letter(person.world.databases, person.user.id)).id


MAKERS: Final[dict[str, Callable[[Person], Awaitable[str]]]] = {
    "user_id": _user_id,
    "wallet_id": _wallet_id,
    "withdrawal_id": _withdrawal_id,
    "deposit_id": _deposit_id,
    "transfer_id": _transfer_id,
    "entry_id": _entry_id,
    "quote_id": _quote_id,
    "conversion_id": _conversion_id,
    "hold_id": _hold_id,
    "adjustment_id": _adjustment_id,
    "reversal_id": _reversal_id,
    "operation_id": _operation_id,
    "return_id": _return_id,
    "incident_id": _incident_id,
    "voucher_id": _voucher_id,
    "redemption_id": _redemption_id,
    "break_id": _break_id,
    "key_id": _key_id,
    "proposal_id": _proposal_id,
    "session_id": _session_id,
    "endpoint_id": _endpoint_id,
    "delivery_id": _delivery_id,
    "currency": _currency,
    "number": _first,
    "dead_letter_id": _dead_letter_id,
}

# What nobody else of the same role may see, by the role. Admins see all.
PRIVATE: Final[dict[str, frozenset[str]]] = {
    USER: frozenset(MAKERS) - {"voucher_id", "dead_letter_id", "break_id", "currency", "number"},
    SERVICE: frozenset({"adjustment_id"}),
    ADMIN: frozenset(),
}


# Values for fields and parameters: by name, or by route and place.


async def _own_refresh_token(person: Person) -> str:
    return await person.once("refresh token", _refresh_token)


async def _third_wallet_id(person: Person) -> str:
    return person.world.third.wallet.id


async def _own_quote_id(person: Person) -> str:
    return await person.id_of("quote_id")


async def _own_email(person: Person) -> str:
    return person.user.email


async def _new_email(_person: Person) -> str:
    return make_email()


async def _password(_person: Person) -> str:
    return PASSWORD


async def _unopened_currency(_person: Person) -> str:
    return "JPY"


async def _inr(_person: Person) -> str:
    return "INR"


async def _usd(_person: Person) -> str:
    return "USD"


async def _name(_person: Person) -> str:
    return "Asha"


async def _receiver(_person: Person) -> str:
    """Where nobody listens; examples of other names would have to be looked up."""
    return "http://127.0.0.1:9/events"


async def _title(_person: Person) -> str:
    return "A cup of coffee"


VALUES: Final[dict[str | tuple[str, str], Callable[[Person], Awaitable[Any]]]] = {
    "from_wallet_id": _wallet_id,
    "wallet_id": _wallet_id,
    "to_wallet_id": _third_wallet_id,
    "quote_id": _own_quote_id,
    "first_name": _name,
    "last_name": _name,
    "email": _own_email,
    "password": _password,
    "current_password": _password,
    ("POST /api/v1/auth/refresh", "refresh_token"): _own_refresh_token,
    "url": _receiver,
    "currency": _inr,
    "from_currency": _inr,
    "to_currency": _usd,
    ("POST /api/v1/auth/register", "email"): _new_email,
    ("POST /api/v1/admin/api-keys", "user_id"): _service_id,
    ("POST /api/v1/wallets", "currency"): _unopened_currency,
    ("POST /api/v1/transfers", "to_wallet_id"): _third_wallet_id,
    ("POST /api/v1/transfers/batch", "transfers/0/to_wallet_id"): _third_wallet_id,
    ("PATCH /api/v1/admin/vouchers/{voucher_id}", "title"): _title,
    ("POST /api/v1/wallets/{wallet_id}/close", "reason"): _title,
    ("DELETE /api/v1/admin/users/{user_id}/limits/{currency}", "reason"): _title,
    ("DELETE /api/v1/admin/users/{user_id}/limits", "reason"): _title,
}

# Ids in bodies that have to be one's own; others name who is to be paid, or whom an admin means, whoever that is.
OWN_IDS_IN_BODIES: Final = frozenset({"from_wallet_id", "wallet_id", "quote_id"})
ADDRESSES_IN_BODIES: Final = frozenset({"to_wallet_id", "user_id"})
