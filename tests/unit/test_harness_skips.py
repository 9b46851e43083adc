"""In CI a skipped test fails the run and is named, unless it is a GPU test."""

from __future__ import annotations

import pytest

SKIPS = """
    import pytest

    @pytest.mark.gpu
    def test_gpu():
        pytest.skip("no GPU")

    def test_fine():
        pass

    @pytest.mark.xfail(reason="known")
    def test_known():
        assert False
"""
NO_SERVER = """
    import pytest

    def test_server():
        pytest.skip("no radosgw")
"""
NO_MODULE = """
    import pytest

    pytest.importorskip("surely_not_a_module")
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    pytester.makeini("[pytest]\nmarkers = gpu: needs a GPU\n")
    return pytester.runpytest_inprocess("-p", "tests.skip_guard", *arguments)


def test_gpu_tests_may_skip_in_ci(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    pytester.makepyfile(SKIPS)
    result = run(pytester)
    result.assert_outcomes(passed=1, skipped=1, xfailed=1)
    assert result.ret == 0


@pytest.mark.parametrize(("source", "name"), [(NO_SERVER, "*::test_server: *no radosgw"), (NO_MODULE, "*surely_not*")])
def test_nothing_else_may(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, source: str, name: str) -> None:
    monkeypatch.setenv("CI", "true")
    pytester.makepyfile(test_allowed=SKIPS, test_other=source)
    result = run(pytester)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*skipped in CI, where only GPU tests may be*", name])
    assert "test_gpu:" not in result.stdout.str()


def test_elsewhere_skips_are_only_skips(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    pytester.makepyfile(NO_SERVER)
    assert run(pytester).ret == 0
