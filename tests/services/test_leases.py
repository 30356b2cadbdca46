"""No lease is forgotten where rows that a worker may have in hand are left alone."""

import ast
from pathlib import Path

import service
import workers
from service.domain.dead_letters import Queue
from service.services import leases
from service.settings import Settings

_FOLDERS = (Path(service.__path__[0]) / "services", Path(workers.__path__[0]))
_REPAIR = "clock_repair.py"


def lease_arguments() -> dict[str, str]:
    """What each claim and renewal gives as `lease_s`, by file and line."""
    found: dict[str, str] = {}
    for path in (path for folder in _FOLDERS for path in folder.glob("*.py") if path.name != _REPAIR):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "lease_s":
                found[f"{path.name}:{node.lineno}"] = ast.unparse(node.value)
    return found


def test_every_claim_names_one_of_the_leases() -> None:
    found = lease_arguments()
    assert len(found) >= 7
    assert {place: value for place, value in found.items() if not value.startswith("leases.")} == {}


def test_every_lease_counts_in_a_longest_one() -> None:
    tree = ast.parse(Path(leases.__file__).read_text())
    longest = [node for node in tree.body if "longest" in ast.unparse(node).lower().split("=")[0]]
    counted = {node.id for one in longest for node in ast.walk(one) if isinstance(node, ast.Name)}
    claimed = {value.split(".")[1].split("(")[0].split()[0] for value in lease_arguments().values()}
    assert claimed <= counted


def test_a_mail_that_a_slow_server_takes_counts(settings: Settings) -> None:
    """Else a mail that is being sent would be sent a second time."""
    slow = settings.model_copy(update={"mail": "smtp", "mail_timeout_s": 60.0})
    assert leases.longest_s(Queue.OUTBOX, slow) >= leases.mails_s(slow) == 90.0


def test_a_day_s_comparison_has_longer_than_a_statement_may_take() -> None:
    assert leases.LONGEST_OF_DUTIES_S >= leases.RECONCILIATION_S > leases.STATEMENT_LIMIT_S
