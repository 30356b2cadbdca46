"""The deep wallet's bench: what it writes is a right history, and what it tells is arithmetic."""

from itertools import pairwise

import pytest

from scripts.bench.deep_wallet import _FIRST_AT, _SPAN, PROBES, Export, Reading, _memory_is_met, _more
from service.domain.entries import entry_hash
from service.domain.identifiers import Prefix, new_id
from service.domain.wallets import new_wallet


class TestHistory:
    def test_is_a_right_chain_over_the_whole_span_in_any_portions(self) -> None:
        start = new_wallet(new_id(Prefix.WALLET), new_id(Prefix.USER), "INR", _FIRST_AT)
        half, first = _more(start, 50, 100)
        end, second = _more(half, 50, 100)
        entries = first + second
        assert [entry.seq for entry in entries] == list(range(1, 101))
        assert all(entry.hash == entry_hash(entry) for entry in entries)
        assert all(later.prev_hash == earlier.hash for earlier, later in pairwise(entries))
        assert all(later.created_at > earlier.created_at for earlier, later in pairwise(entries))
        assert entries[-1].created_at == _FIRST_AT + _SPAN
        assert entries[0].created_at == _FIRST_AT + _SPAN / 100
        assert (end.seq, end.available, end.held) == (100, 25 * 485, 0)


class TestTargets:
    @pytest.mark.parametrize(("deep_ms", "is_met"), [(1.0, True), (4.0, True), (4.1, False)])
    def test_a_deep_wallet_may_take_twice_as_long(self, deep_ms: float, is_met: bool) -> None:
        reading = Reading(PROBES[0], shallow_ms=2.0, deep_ms=deep_ms)
        assert reading.is_met is is_met

    def test_without_a_target_any_ratio_will_do(self) -> None:
        assert Reading(PROBES[0]._replace(target_ratio=None), shallow_ms=1.0, deep_ms=100.0).is_met

    @pytest.mark.parametrize(("peak_mb", "is_met"), [(99.9, True), (100.0, False)])
    def test_the_process_may_have_so_much_memory_during_an_export(self, peak_mb: float, is_met: bool) -> None:
        export = Export(records=1, size_mib=1, seconds=1, before_mb=90, peak_mb=peak_mb, others_ms=[])
        assert _memory_is_met(export) is is_met
