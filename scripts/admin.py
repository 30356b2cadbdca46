"""Makes the first admins: `python -m scripts.admin asha@example.com`, twice, since four eyes need two.

Works in production too, beside the running service, and leaves an audit event. Ends with 0, also where nothing was to
do; 1 where it refuses; 2 where it could not look.
"""

import asyncio
import getpass
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Final

import typer
from pydantic import ValidationError
from pymongo.errors import PyMongoError

from service.database import bind_documents, connect
from service.errors import AccountDeactivated, InvalidFields
from service.services.first_admins import ENOUGH_ADMINS, Appointment, Deed, Outcome, appoint_admin
from service.services.passwords import Passwords
from service.settings import Settings, get_settings

_REFUSED: Final = 1
_COULD_NOT_LOOK: Final = 2


def main(
    email: Annotated[str, typer.Argument(help="Whoever has this address becomes an admin.")],
    first_name: Annotated[str, typer.Option(help="Of a new account.")] = "New",
    last_name: Annotated[str, typer.Option(help="Of a new account.")] = "Admin",
    reason: Annotated[str, typer.Option(help="Stands in the audit event.")] = "One of the first admins",
    *,
    force: Annotated[bool, typer.Option("--force", help="Although there are two admins already.")] = False,
) -> None:
    """Make somebody an admin; an account is made where nobody has the address."""
    deed = Deed(f"{getpass.getuser()}@{socket.gethostname()}", reason, is_forced=force)
    try:
        settings = get_settings()
        appointment = asyncio.run(_appoint(settings, email, (first_name, last_name), deed))
    except AccountDeactivated as error:
        print(f"The account of {email} is deactivated: an admin has to reactivate it first.", file=sys.stderr)
        raise typer.Exit(_REFUSED) from error
    except InvalidFields as error:
        print(f"{email} is no e-mail address.", file=sys.stderr)
        raise typer.Exit(_COULD_NOT_LOOK) from error
    except (PyMongoError, ValidationError) as error:
        print(f"admin could not look: {error}", file=sys.stderr)
        raise typer.Exit(_COULD_NOT_LOOK) from error
    if appointment.outcome is Outcome.UNPROVEN:
        print(
            f"Somebody has an account with {email}, and nobody has proven that the address is theirs. Let them ask for "
            "POST /api/v1/auth/password-reset and choose a new password, then run this again.",
            file=sys.stderr,
        )
        raise typer.Exit(_REFUSED)
    if appointment.outcome is Outcome.REFUSED:
        print(
            f"There are {appointment.admins} admins already, who make others: PUT /api/v1/admin/users/{{id}}/roles. "
            "Where none of them can act any more, or they need somebody who approves for both, add --force.",
            file=sys.stderr,
        )
        raise typer.Exit(_REFUSED)
    print("\n".join(_told(email, appointment, settings)))


def _told(email: str, appointment: Appointment, settings: Settings) -> list[str]:
    """Tells what was done, and what to do next."""
    match appointment.outcome:
        case Outcome.CREATED:
            where = (
                "in their mailbox" if settings.mail == "smtp" else f"in {settings.mailbox_path}, as WALLET_MAIL is file"
            )
            lines = [
                f"{email} has a new account and is an admin.",
                f"Next: the worker sends a mail with a token (wpr_…) that is good for an hour; it is {where}.",
                "      POST /api/v1/auth/password-reset/confirm with it and a new password, then log in.",
                "      Where it is too late: POST /api/v1/auth/password-reset sends another one.",
            ]
        case Outcome.PROMOTED:
            lines = [
                f"{email} is an admin.",
                "Next: POST /api/v1/auth/login anew, or a refresh: tokens from before do not say so.",
            ]
        case Outcome.VOUCHED:
            lines = [f"{email} approves from now on what the admins ask for who made them one, and they the same."]
        case _:
            lines = [f"{email} is an admin already: nothing was changed."]
    lines.append("      Then enrol an authenticator app: POST /api/v1/me/totp.")
    if appointment.admins < ENOUGH_ADMINS:
        lines.append("      Four eyes need a second admin: make admin EMAIL=… once more, for another person.")
    return lines


async def _appoint(settings: Settings, email: str, names: tuple[str, str], deed: Deed) -> Appointment:
    databases = connect(settings.mongo_url.get_secret_value(), settings, silence_s=None)
    try:
        await bind_documents(databases)
        with ThreadPoolExecutor(1) as hashing:
            return await appoint_admin(
                databases.client, Passwords(hashing), email, names, settings.default_currency, deed
            )
    finally:
        await databases.close()


if __name__ == "__main__":
    typer.run(main)
