"""Docker Compose and the image. There is no engine to try them on: what can be told from the files alone."""

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # PyYAML has no types
from pydantic import ValidationError

from scripts.new_env import fill
from scripts.service_stack import api_options
from scripts.stack_environment import public_half
from service.database import ELECTION_SETTINGS
from service.settings import Settings
from service.transaction_lifetime import TRANSACTION_LIFETIME_S

_ROOT = Path(__file__).parent.parent
_COMPOSE: dict[str, Any] = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())
_SERVICES: dict[str, Any] = _COMPOSE["services"]
_PROGRAMS = ("migrate", "api", "worker")
_SETTINGS = {f"WALLET_{name.upper()}" for name in Settings.model_fields}
# Hosts, ports, and where a container that is read-only can write.
_DECIDED = {
    "WALLET_MONGO_URL",
    "WALLET_MONGO_ADMIN_URL",
    "WALLET_BANK_MONGO_URL",
    "WALLET_AUDIT_MONGO_URL",
    "WALLET_REDIS_URL",
    "WALLET_PORT",
    "WALLET_WORKER_METRICS_PORT",
    "WALLET_BANK_CALLBACK_URL",
    "WALLET_MAILBOX_FILE",
    "WALLET_CHECKPOINT_FILE",
}
# The file has it for all, and the worker alone gets it.
_SIGNING_KEY = "WALLET_CHECKPOINT_SIGNING_KEY"
# Administrators' and servers' own; a program has them as part of its URLs, where it has them at all.
_PASSWORDS = {
    "WALLET_MONGO_ROOT_PASSWORD",
    "WALLET_MONGO_SERVICE_PASSWORD",
    "WALLET_MONGO_BANK_PASSWORD",
    "WALLET_MONGO_AUDIT_PASSWORD",
    "WALLET_REDIS_PASSWORD",
}


def _environment(name: str, dotenv: dict[str, str]) -> dict[str, str]:
    """What the service's container gets, its `environment` before its `env_file`, with nothing set in the shell."""

    def value_of(match: re.Match[str]) -> str:
        return dotenv.get(match["name"]) or match["default"] or ""

    variable = r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}"
    read = dotenv if {"path": ".env", "required": False} in _SERVICES[name].get("env_file", []) else {}
    given = {key: re.sub(variable, value_of, value) for key, value in _SERVICES[name]["environment"].items()}
    return {**read, **given}


class TestSettings:
    @pytest.mark.parametrize("program", _PROGRAMS)
    def test_of_the_file_reach_the_container_but_for_those_that_compose_decides(self, program: str) -> None:
        dotenv = {name: f"the file's {name}" for name in _SETTINGS | _PASSWORDS}
        environment = _environment(program, dotenv)
        withheld = set() if program == "worker" else {_SIGNING_KEY}
        assert {name for name in _SETTINGS if environment.get(name) == dotenv[name]} == _SETTINGS - _DECIDED - withheld

    @pytest.mark.parametrize("program", ["api", "migrate"])
    def test_let_nobody_sign_checkpoints_but_the_worker(self, program: str) -> None:
        """Whoever answers clients could sign another history."""
        text = fill((_ROOT / ".env.example").read_text())
        dotenv = dict(re.findall(r"^(WALLET_\w+)=(.*)$", text, flags=re.MULTILINE))
        names = (_SIGNING_KEY, "WALLET_CHECKPOINT_PUBLIC_KEY")
        signing, public = (_environment(program, dotenv)[name] for name in names)
        worker = [_environment("worker", dotenv)[name] for name in names]
        assert (signing, public) == ("", public_half(worker[0]))
        assert worker == [dotenv[name] for name in names]

    def test_that_nobody_sets_are_left_to_the_service(self) -> None:
        """Only what has no good default is named, and a token that may stay away."""
        named = {name for name, value in _environment("api", {}).items() if name.startswith("WALLET_") and value}
        assert named == (_DECIDED - {"WALLET_MONGO_ADMIN_URL", "WALLET_AUDIT_MONGO_URL"}) | {
            "WALLET_ENV",
            "WALLET_PUBLISHED_AT",
        }

    def test_that_are_written_by_default_are_for_this_machine_only(self) -> None:
        """The file says development: whoever publishes the port beyond loopback has to say production."""
        text = fill((_ROOT / ".env.example").read_text())
        dotenv = dict(re.findall(r"^(WALLET_\w+)=(.*)$", text, flags=re.MULTILINE))
        api = _environment("api", dotenv)
        assert (api["WALLET_ENV"], api["WALLET_PUBLISHED_AT"]) == ("development", "127.0.0.1")
        assert _SERVICES["api"]["ports"][0].startswith("${WALLET_PUBLISHED_AT:-127.0.0.1}:")
        beyond = _environment("api", dotenv | {"WALLET_PUBLISHED_AT": "0.0.0.0"})  # noqa: S104 what is refused
        for environment, is_refused in ((api, False), (beyond, True)):
            values = {
                name.removeprefix("WALLET_").lower(): environment[name]
                for name in ("WALLET_ENV", "WALLET_PUBLISHED_AT")
            }
            with pytest.raises(ValidationError, match="WALLET_PUBLISHED_AT") if is_refused else nullcontext():
                Settings(_env_file=None, **values)  # type: ignore[arg-type]  # text, as Compose hands it on

    @pytest.mark.parametrize("program", ["api", "worker"])
    def test_do_not_tell_who_the_administrator_is(self, program: str) -> None:
        environment = _environment(program, dict.fromkeys(_SETTINGS | _PASSWORDS, "known"))
        assert {name for name in {*_PASSWORDS, "WALLET_MONGO_ADMIN_URL"} if environment.get(name)} == set()

    def test_give_each_program_the_users_of_mongodb_that_it_needs(self) -> None:
        names = ("WALLET_MONGO_URL", "WALLET_BANK_MONGO_URL", "WALLET_AUDIT_MONGO_URL")
        for program in _PROGRAMS:
            urls = [_environment(program, dict.fromkeys(_PASSWORDS, "word"))[name] for name in names]
            users = [
                re.sub(r"mongodb://(\w+):word@mongo:27017/\?authSource=admin&replicaSet=rs0", r"\1", url)
                for url in urls
            ]
            assert users == ["wallet_service", "wallet_bank", "" if program == "api" else "wallet_auditor"]

    def test_name_the_ports_at_which_the_programs_answer(self) -> None:
        api, worker = (_environment(name, dict.fromkeys(_SETTINGS, "1")) for name in ("api", "worker"))
        published: str = _SERVICES["api"]["ports"][0]
        assert published.endswith(f":{api['WALLET_PORT']}")
        # A port has one owner, and the API looks for no worker beside it.
        assert (api["WALLET_WORKER_METRICS_PORT"], worker["WALLET_WORKER_METRICS_PORT"]) == ("0", "9100")


class TestMongo:
    def test_elects_a_primary_as_fast_as_the_embedded_one_and_ends_transactions_as_soon(self) -> None:
        script: str = _SERVICES["mongo"]["healthcheck"]["test"][-1]
        (settings,) = re.findall(r"settings: \{([^}]*)\}", script)
        assert {name: int(value) for name, value in re.findall(r"(\w+): (\d+)", settings)} == ELECTION_SETTINGS
        assert f"transactionLifetimeLimitSeconds={TRANSACTION_LIFETIME_S}" in _SERVICES["mongo"]["command"]


class TestNetworks:
    @staticmethod
    def _leads_out(name: str) -> bool:
        return any(not (_COMPOSE["networks"][network] or {}).get("internal") for network in _SERVICES[name]["networks"])

    def test_let_the_programs_out_that_send_webhooks_mails_and_traces_and_nobody_in_but_to_the_api(self) -> None:
        assert {name for name in ("mongo", "redis", *_PROGRAMS) if self._leads_out(name)} == {"api", "worker"}
        assert {name for name in ("mongo", "redis", *_PROGRAMS) if "ports" in _SERVICES[name]} == {"api"}


class TestBounds:
    @pytest.mark.parametrize("name", _SERVICES)
    def test_are_set_on_processes_memory_and_files_of_every_container(self, name: str) -> None:
        service = _SERVICES[name]
        assert 0 < service["pids_limit"] <= 4096
        assert re.fullmatch(r"[1-9]\d*[mg]", service["mem_limit"])
        assert service["ulimits"]["nofile"]["hard"] >= service["ulimits"]["nofile"]["soft"] > 0

    def test_leave_the_api_the_files_for_all_its_connections(self) -> None:
        files = _SERVICES["api"]["ulimits"]["nofile"]["soft"]
        assert files > 2 * Settings.model_fields["connections_limit"].default


class TestEvidence:
    def test_is_on_a_volume_of_the_workers_alone(self) -> None:
        """Whoever has taken over MongoDB or the API cannot change the copy of the checkpoints."""
        with_volume = {name for name, one in _SERVICES.items() if any("evidence" in v for v in one.get("volumes", []))}
        assert with_volume == {"worker"}
        assert _environment("worker", {})["WALLET_CHECKPOINT_FILE"].startswith("/evidence/")
        assert "/evidence" in (_ROOT / "Dockerfile").read_text()


class TestImage:
    def test_serves_the_api_as_everybody_else_does(self) -> None:
        in_one_line = (_ROOT / "Dockerfile").read_text().replace("\\\n", "")
        (command,) = re.findall(r"^CMD (.*)$", in_one_line, flags=re.MULTILINE)
        everywhere = "0.0.0.0"  # noqa: S104 within the container
        assert json.loads(command) == ["python", "-m", "uvicorn", *api_options(host=everywhere, port=8000)]
