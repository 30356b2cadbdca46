"""The copy of the checkpoints in a file: appended once, whole, in order, by several at once, after a crash too."""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scripts.checkpoint_rules import hash_of_published
from scripts.place_rules import Place
from scripts.stack_environment import environment_for
from scripts.verify_proof import check_series, read_json
from service.domain.checkpoints import Checkpoint, checkpoint_hash, checkpoint_view, key_id_of, make_checkpoint
from service.gateways.checkpoint_places import CheckpointFile, PlaceDiffers, PlaceEnd
from service.settings import Settings
from tests.logs import own_logs

_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
# The same in every process, so that each signs the same checkpoints.
_NOW = datetime(2026, 2, 24, tzinfo=UTC)


def series(length: int, first: Checkpoint | None = None) -> list[Checkpoint]:
    made = [] if first is None else [first]
    while len(made) < length:
        before = made[-1] if made else None
        made.append(make_checkpoint(before, [], len(made), _NOW, _KEY))
    return made


def file_in(folder: Path) -> tuple[CheckpointFile, Path]:
    settings = Settings(_env_file=None, data_dir=str(folder / "data"))
    return CheckpointFile(settings), Path(settings.checkpoint_path)


def end_of(checkpoint: Checkpoint) -> PlaceEnd:
    return PlaceEnd(checkpoint.number, checkpoint_hash(checkpoint))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestCheckpointFile:
    async def test_has_a_line_for_each_as_it_is_published_however_often_it_is_appended(self, tmp_path: Path) -> None:
        place, path = file_in(tmp_path)
        assert await place.read_end() is None
        made = series(3)
        for _ in range(2):
            await place.append(made[:2])
            await place.append(made[1:])
        assert lines_of(path) == [checkpoint_view(one) for one in made]
        assert await place.read_end() == end_of(made[2])
        assert path.name == "wallet-checkpoints.jsonl"

    async def test_is_read_by_the_verifier_as_it_is(self, tmp_path: Path) -> None:
        place, path = file_in(tmp_path)
        await place.append(series(3))
        keys = {key_id_of(_KEY.public_key()): _KEY.public_key()}
        assert len(check_series(read_json(path), keys)) == 3

    async def test_takes_neither_another_one_of_a_number_nor_one_that_does_not_follow(self, tmp_path: Path) -> None:
        place, path = file_in(tmp_path)
        made = series(4)
        await place.append(made[:2])
        content = path.read_bytes()
        other = make_checkpoint(made[0], [], 9, _NOW, _KEY)
        for wrong in (other, make_checkpoint(other, [], 9, _NOW, _KEY), made[3]):
            with pytest.raises(PlaceDiffers):
                await place.append([wrong])
        assert path.read_bytes() == content

    @pytest.mark.parametrize("cut", [1, 40, 400])
    async def test_ends_a_line_that_a_crash_has_torn_and_writes_it_anew(self, tmp_path: Path, cut: int) -> None:
        place, path = file_in(tmp_path)
        made = series(3)
        await place.append(made)
        path.write_bytes(path.read_bytes()[:-cut])
        with own_logs() as lines:
            await place.append(made)
        assert [line["event"] for line in lines] == ["checkpoint.torn_line_ended"]
        assert await place.read_end() == end_of(made[2])
        hashes = {one.number: checkpoint_hash(one) for one in made}
        kept = Place("copy", path.read_bytes(), None)
        assert [*kept.check_lines(), *kept.compare(hashes, dict.fromkeys(hashes, _NOW), _NOW + timedelta(days=1))] == []

    async def test_refuses_to_go_on_where_it_knows_nothing_of_what_is_there(self, tmp_path: Path) -> None:
        place, path = file_in(tmp_path)
        path.parent.mkdir()
        path.write_bytes(b"no checkpoint\n")
        for deed in (place.read_end(), place.append(series(1))):
            with pytest.raises(PlaceDiffers):
                await deed

    async def test_has_each_once_where_two_processes_and_several_tasks_append_at_once(self, tmp_path: Path) -> None:
        place, path = file_in(tmp_path)
        path.parent.mkdir()
        text = (
            "import asyncio\nfrom tests.gateways.test_checkpoint_places import *\n"
            f"place, _ = file_in(Path({str(tmp_path)!r}))\n"
            "asyncio.run(place.append(series(40)))\n"
        )
        command = (sys.executable, "-c", text)
        made = series(40)
        other = await asyncio.create_subprocess_exec(*command, env=environment_for({}), stderr=asyncio.subprocess.PIPE)
        await asyncio.gather(*(place.append(made[: 10 * part]) for part in (1, 2, 3, 4)))
        _, told = await other.communicate()
        assert (other.returncode, told) == (0, b"")
        assert lines_of(path) == [checkpoint_view(one) for one in made]


class TestPlaceRules:
    """What check-ledger says of a copy that does not fit."""

    @staticmethod
    def breaches(content: bytes, kept: list[Checkpoint], *, is_late: bool = True) -> list[tuple[str, str]]:
        place = Place("copy", content, _KEY.public_key())
        hashes = {one.number: checkpoint_hash(one) for one in kept}
        due_at = _NOW + timedelta(seconds=1 if is_late else -1)
        found = [*place.check_lines(), *place.compare(hashes, {one.number: one.created_at for one in kept}, due_at)]
        return [(breach.rule, breach.subject) for breach in found]

    @staticmethod
    def content(made: list[Checkpoint]) -> bytes:
        return b"".join(json.dumps(checkpoint_view(one)).encode() + b"\n" for one in made)

    def test_find_nothing_in_a_copy_that_is_one(self) -> None:
        made = series(3)
        assert self.breaches(self.content(made), made) == []
        assert [hash_of_published(checkpoint_view(one)) for one in made] == [checkpoint_hash(one) for one in made]

    def test_miss_what_is_due_and_nothing_that_may_be_on_its_way(self) -> None:
        made = series(3)
        assert self.breaches(self.content(made[:2]), made) == [("place_missing", "3")]
        assert self.breaches(self.content(made[:2]), made, is_late=False) == []
        assert self.breaches(b"", made) == [("place_missing", "1")]
        torn = self.content(made)[:-100]
        assert self.breaches(torn, made, is_late=False) == []

    def test_find_what_the_database_has_lost_or_has_another_of(self) -> None:
        made = series(3)
        other = make_checkpoint(made[1], [], 9, _NOW, _KEY)
        assert self.breaches(self.content(made), made[:2]) == [("place_lost", "3")]
        assert self.breaches(self.content(made), [*made[:2], other]) == [("place_other", "3")]
        assert self.breaches(self.content([*made, other]), made) == [("place_second", "3")]

    def test_find_gaps_and_lines_that_are_nothing(self) -> None:
        made = series(3)
        assert self.breaches(self.content([made[0], made[2]]), made) == [("place_gap", "3"), ("place_missing", "2")]
        content = self.content(made[:1]) + b"what is this\n" + self.content(made[1:])
        assert self.breaches(content, made) == [("place_line", "copy:2")]
