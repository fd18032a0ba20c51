"""What `python -m tests` reads out of pytest's report."""

from pathlib import Path

import pytest

from tests.runner.results import Results, read_junit

pytest_plugins = ["pytester"]

CONFTEST = """
def pytest_collection_modifyitems(items):
    for item in items:
        item.user_properties += [("marker", marker.name) for marker in item.iter_markers()]
"""


def _results(pytester: pytest.Pytester, **modules: str) -> Results:
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nmarkers =\n browser\n processes\n")
    if modules:
        pytester.makepyfile(**modules)
    report = pytester.path / "report.xml"
    pytester.runpytest_subprocess(f"--junitxml={report}", "-p", "no:django")
    return read_junit(report)


def test_counts(pytester: pytest.Pytester) -> None:
    results = _results(
        pytester,
        test_one="""
        import pytest
        def test_passes(): pass
        def test_fails(): assert False
        def test_errors(missing): pass
        @pytest.mark.skip(reason="why")
        def test_skipped(): pass
        @pytest.mark.xfail
        def test_xfails(): assert False
        """,
    )
    assert (results.passed, results.failed, results.skipped, results.expected_failures) == (1, 2, 1, 1)
    assert results.required_skipped == []


def test_skipped_required_tests_are_named(pytester: pytest.Pytester) -> None:
    results = _results(
        pytester,
        test_one="""
        import pytest
        @pytest.mark.browser
        def test_page(): pytest.skip("no browser")
        @pytest.mark.processes
        def test_process(): pass
        """,
    )
    assert [text.partition("::")[2] for text in results.required_skipped] == ["test_page: no browser"]
    assert results.required_run == {"browser": 0, "processes": 1}


def test_required_modules_that_skip_themselves_are_named(pytester: pytest.Pytester) -> None:
    folder = pytester.mkpydir("tests")
    (folder / "browser").mkdir()
    (folder / "browser" / "__init__.py").touch()
    (folder / "browser" / "test_pages.py").write_text("import pytest\npytest.importorskip('no_such_driver')\n")
    results = _results(pytester)
    assert len(results.required_skipped) == 1


def test_missing_report_is_a_failure(tmp_path: Path) -> None:
    assert read_junit(tmp_path / "none.xml").failed == 1
