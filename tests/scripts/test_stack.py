"""The embedded servers and the stack around them, as real processes."""

import base64
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pymongo
import pytest
import redis
from pymongo.errors import OperationFailure

from scripts.embedded import EmbeddedServerError, MongoServer, RedisServer, free_port, start_mongod, start_redis
from scripts.new_env import add_passwords, add_public_key, fill
from scripts.server_process import command_line, port_is_free, wait_until
from scripts.service_stack import API, WORKER, ChildFailedError, Stack, stop_leftover_programs
from scripts.stack_environment import ROOT, choose_api_port, choose_server_port, own_secrets, port_setting, public_half
from service.database import ELECTION_SETTINGS
from service.settings import Environment, Settings
from tests.test_settings import STAND_INS

# An API in one file: what the stack does with programs does not depend on what they do.
STUB_API = """
from fastapi import FastAPI

def create_app():
    app = FastAPI()
    app.get("/readyz")(lambda: {})
    return app
"""


@pytest.fixture(scope="module")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    with start_mongod(tmp_path_factory.mktemp("mongo"), free_port()) as server:
        yield server


@pytest.fixture
def listener() -> Iterator[int]:
    """A port that another program has."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def count_notes(mongo: MongoServer) -> int:
    with pymongo.MongoClient[dict[str, object]](mongo.admin_url) as client:
        return client.diary.notes.count_documents({})


def write_note(mongo: MongoServer) -> None:
    with pymongo.MongoClient[dict[str, object]](mongo.admin_url) as client, client.start_session() as session:
        # In a transaction, which only a replica set has.
        session.with_transaction(lambda one: client.diary.notes.insert_one({"text": "kept"}, session=one))


class TestMongoServer:
    def test_keeps_data_through_sigkill_and_restart(self, mongo: MongoServer) -> None:
        before = count_notes(mongo)
        write_note(mongo)
        mongo.kill()
        assert not mongo.is_running
        mongo.start()
        assert count_notes(mongo) == before + 1

    def test_adopts_another_port_with_its_old_data(self, mongo: MongoServer) -> None:
        write_note(mongo)
        before = count_notes(mongo)
        mongo.stop()
        mongo.port = free_port()
        mongo.start()
        assert count_notes(mongo) == before

    def test_elects_as_fast_as_the_service_asks_also_where_it_was_set_up_before(self, mongo: MongoServer) -> None:
        with pymongo.MongoClient[dict[str, Any]](mongo.admin_url) as client:
            config = client.admin.command("replSetGetConfig")["config"]
            assert config["settings"].items() >= ELECTION_SETTINGS.items()
            config["settings"]["electionTimeoutMillis"] = 10_000
            client.admin.command("replSetReconfig", config | {"version": config["version"] + 1})
        mongo.stop()
        mongo.start()
        with pymongo.MongoClient[dict[str, Any]](mongo.admin_url) as client:
            config = client.admin.command("replSetGetConfig")["config"]
            assert config["settings"].items() >= ELECTION_SETTINGS.items()

    def test_lets_nobody_in_without_a_password(self, mongo: MongoServer) -> None:
        with (
            pymongo.MongoClient[dict[str, object]](mongo.url) as client,
            pytest.raises(OperationFailure, match="requires authentication"),
        ):
            client.diary.notes.find_one()

    def test_decompresses_nothing_of_anybody(self, mongo: MongoServer) -> None:
        """It would do so before a login."""
        with pymongo.MongoClient[dict[str, Any]](mongo.url) as client:
            answer = client.admin.command({"hello": 1, "compression": ["zlib", "snappy", "zstd"]})
        assert not answer.get("compression")

    def test_keeps_its_secrets_from_other_users(self, mongo: MongoServer) -> None:
        for name in ("keyfile", "root-password"):
            assert (mongo.data_dir / name).stat().st_mode & 0o077 == 0
        assert mongo.root_password not in (command_line(mongo.process.pid) or "" if mongo.process else "")

    def test_refuses_a_directory_that_is_in_use(self, mongo: MongoServer) -> None:
        with pytest.raises(EmbeddedServerError, match="is in use by a running mongod"):
            start_mongod(mongo.data_dir, free_port())
        assert count_notes(mongo) >= 0

    def test_says_which_port_is_taken_and_how_to_choose_another(self, tmp_path: Path, listener: int) -> None:
        with pytest.raises(EmbeddedServerError, match=rf"Port {listener} .*taken.*\n?.*WALLET_EMBEDDED_MONGO_PORT"):
            start_mongod(tmp_path, listener)

    def test_shows_the_log_of_a_server_that_dies_while_starting(self, tmp_path: Path) -> None:
        with pytest.raises(EmbeddedServerError, match=r"(?s)ended with status .*The end of its log.*noSuchParameter"):
            start_mongod(tmp_path, free_port(), parameters={"noSuchParameter": "1"})

    def test_stops_the_server_that_a_killed_program_left_behind(self, tmp_path: Path) -> None:
        port = free_port()
        program = (
            "import os, signal, threading; from pathlib import Path; from scripts.embedded import start_mongod\n"
            # From a thread, so that the server does not end with its parent.
            f"thread = threading.Thread(target=lambda: start_mongod(Path({str(tmp_path)!r}), {port}))\n"
            "thread.start(); thread.join(); os.kill(os.getpid(), signal.SIGKILL)"
        )
        ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)  # noqa: S603 the lines above
        assert ended.returncode == -signal.SIGKILL
        assert not port_is_free(port)
        with start_mongod(tmp_path, port) as mongo:
            write_note(mongo)


class TestRedisServer:
    def test_keeps_data_through_restart_and_asks_for_a_password(self, tmp_path: Path) -> None:
        with start_redis(tmp_path, free_port()) as server:
            with redis.Redis.from_url(server.url) as client:
                client.set("note", "kept")
            server.stop()
            server.start()
            with redis.Redis.from_url(server.url) as client:
                assert client.get("note") == b"kept"
            with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()

    def test_says_which_port_is_taken_and_how_to_choose_another(self, tmp_path: Path, listener: int) -> None:
        with pytest.raises(EmbeddedServerError, match=rf"Port {listener} .*WALLET_EMBEDDED_REDIS_PORT"):
            start_redis(tmp_path, listener)


class TestPorts:
    def test_a_taken_usual_port_gives_way_to_a_free_one(self, listener: int) -> None:
        assert choose_server_port({}, RedisServer, listener) != listener

    def test_a_port_asked_for_is_never_swapped(self, listener: int) -> None:
        asked = {"WALLET_EMBEDDED_REDIS_PORT": str(listener)}
        assert choose_server_port(asked, RedisServer, free_port()) == listener

    def test_a_taken_api_port_is_refused_with_a_way_out(self, listener: int) -> None:
        with pytest.raises(EmbeddedServerError, match=rf"Port {listener} .*WALLET_PORT={listener + 1} make run"):
            choose_api_port({"WALLET_PORT": str(listener)})

    @pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "8_000"])
    def test_what_is_no_port_is_refused(self, text: str) -> None:
        with pytest.raises(EmbeddedServerError, match="WALLET_PORT has to be a port"):
            port_setting({"WALLET_PORT": text}, "WALLET_PORT")


class TestStack:
    @pytest.fixture
    def stack(self, tmp_path: Path, mongo: MongoServer) -> Iterator[Stack]:
        (tmp_path / "stub_api.py").write_text(STUB_API)
        with Stack(tmp_path, settings={"WALLET_MONGO_URL": mongo.admin_url}) as stack:
            stack.start_servers()
            yield stack

    def test_starts_kills_and_starts_the_api_again(self, stack: Stack) -> None:
        for processes in (1, 2):
            stack.start_api(factory="stub_api:create_app", processes=processes)
            stack.kill("api")
            assert port_is_free(stack.api_port), "a process of the killed API's group still listens"
        stack.start_api(factory="stub_api:create_app")
        assert httpx.get(f"{stack.base_url}/readyz").status_code == 200
        stack.stop("api")
        assert not stack.is_running("api")

    def test_shows_the_log_of_an_api_that_does_not_start(self, stack: Stack) -> None:
        with pytest.raises(ChildFailedError, match=r"(?s)The API ended with status \d+.*no_such_module"):
            stack.start_api(factory="no_such_module:create_app")

    def test_uses_the_servers_it_is_given_and_starts_the_others(self, stack: Stack) -> None:
        assert stack.mongo is None
        assert stack.redis is not None
        assert stack.settings["WALLET_REDIS_URL"] == stack.redis.url

    def test_ends_what_a_killed_stack_left_behind(self, stack: Stack) -> None:
        stack.start("sleeper", [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"])
        assert wait_until(lambda: stack.log_path("sleeper").read_text() == "up\n", 10)
        sleeper = stack.children["sleeper"]
        assert stop_leftover_programs(stack.data_dir) == [sleeper.pid]
        assert sleeper.wait(timeout=1) == -signal.SIGKILL

    def test_makes_secrets_once(self, tmp_path: Path, stack: Stack) -> None:
        first = dict(stack.settings)
        assert first["WALLET_BANK_WEBHOOK_SECRET"].startswith("whsec_")
        assert len(base64.b64decode(first["WALLET_ENCRYPTION_KEY"], validate=True)) == 32
        stack.stop_all()
        with Stack(tmp_path, settings={"WALLET_MONGO_URL": first["WALLET_MONGO_URL"]}) as again:
            again.start_servers()
            assert {name: again.settings[name] for name in first if name.endswith(("SECRET", "KEY"))} == {
                name: value for name, value in first.items() if name.endswith(("SECRET", "KEY"))
            }

    def test_tells_no_program_but_the_set_up_who_the_administrator_is(self, tmp_path: Path) -> None:
        stack = Stack(tmp_path, settings={"WALLET_MONGO_ADMIN_URL": "mongodb://root", "WALLET_MONGO_URL": "mongodb://"})
        assert "WALLET_MONGO_ADMIN_URL" not in stack.environment
        assert stack.environment["WALLET_MONGO_URL"] == "mongodb://"

    def test_tells_the_api_only_the_public_half_of_the_key_that_signs_checkpoints(self, tmp_path: Path) -> None:
        seed = own_secrets(tmp_path)["WALLET_CHECKPOINT_SIGNING_KEY"]
        given = {"WALLET_MONGO_URL": "mongodb://", "WALLET_REDIS_URL": "redis://"}
        stack = Stack(tmp_path, settings=given)
        stack.start_servers()
        api, worker = (stack.environment_of(name, []) for name in (API, WORKER))
        assert seed not in api.values()
        assert api["WALLET_CHECKPOINT_PUBLIC_KEY"] == public_half(seed)
        assert worker["WALLET_CHECKPOINT_SIGNING_KEY"] == seed


class TestEnvExample:
    def test_gets_the_public_half_of_its_signing_key_also_where_an_older_file_lacks_it(self) -> None:
        filled = fill((ROOT / ".env.example").read_text())
        values = dict(re.findall(r"^(WALLET_CHECKPOINT_\w+_KEY)=(.*)$", filled, flags=re.MULTILINE))
        assert values["WALLET_CHECKPOINT_PUBLIC_KEY"] == public_half(values["WALLET_CHECKPOINT_SIGNING_KEY"])
        older = re.sub(r"^WALLET_CHECKPOINT_PUBLIC_KEY=.*\n", "", filled, flags=re.MULTILINE)
        assert add_public_key(older) == filled
        assert add_public_key(filled) == filled

    def test_gets_passwords_that_an_older_file_lacks_and_keeps_those_that_it_has(self) -> None:
        filled = fill((ROOT / ".env.example").read_text())
        assert add_passwords(filled) == filled
        older = re.sub(r"^WALLET_MONGO_(?:BANK|AUDIT)_PASSWORD=.*\n", "", filled, flags=re.MULTILINE)
        added = dict(
            re.findall(r"^(WALLET_MONGO_(?:BANK|AUDIT)_PASSWORD)=(\S{32})$", add_passwords(older), re.MULTILINE)
        )
        assert len(set(added.values())) == 2

    def test_lists_every_setting_and_no_other(self) -> None:
        text = (ROOT / ".env.example").read_text()
        listed = set(re.findall(r"^(?:# )?(WALLET_\w+)=", text, flags=re.MULTILINE))
        of_the_service = {f"WALLET_{name.upper()}" for name in Settings.model_fields}
        of_the_stack = {MongoServer.port_setting, RedisServer.port_setting}
        users = ("ROOT", "SERVICE", "BANK", "AUDIT")
        of_compose = {*(f"WALLET_MONGO_{user}_PASSWORD" for user in users), "WALLET_REDIS_PASSWORD"}
        assert listed == of_the_service | of_the_stack | of_compose

    def test_every_secret_is_filled_in_and_good_enough_for_production(self, monkeypatch: pytest.MonkeyPatch) -> None:
        filled = dict(re.findall(r"^(WALLET_\w+)=(.*)$", fill((ROOT / ".env.example").read_text()), flags=re.MULTILINE))
        assert all(filled.values())
        assert len(set(filled.values())) == len(filled)
        for name, value in filled.items():
            monkeypatch.setenv(name, value)
        assert Settings(env=Environment.PRODUCTION, _env_file=None, **STAND_INS)
