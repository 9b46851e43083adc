"""The benchmark of a million rows in small: killed at half, resumed, and every row where it belongs."""

from __future__ import annotations

from pathlib import Path

from jobs.exits import Exit
from tests.bench.bench_million import Million, killed_and_resumed


def test_a_killed_run_resumes_and_every_row_is_accounted_for(tmp_path: Path) -> None:
    job = Million(tmp_path, rows=3000, rows_per_shard=100)
    _, second = killed_and_resumed(job)
    assert second.first_order_s is not None
    assert second.records_read < 2 * job.rows_per_shard, "only the slices that were under way are read again"
    before = job.shards()
    again = job.start(Exit.SOME_ROWS_FAILED)
    assert again.first_order_s is None, "there is nothing left to do"
    assert again.records_read == 0
    assert job.shards() == before
    job.check()
