"""What all tests share. Under CI a skipped test is a failure: there, everything a test needs is installed."""

import contextlib
import os

import pytest

with contextlib.suppress(ImportError):  # tests/launch has none
    from hypothesis import settings

    settings.register_profile("unhurried", deadline=None)  # a busy machine fails no test by its time
    settings.load_profile("unhurried")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter and reporter.stats.get("skipped"):
        reporter.write_line("")
        reporter.write_line("CI: a skipped test is a failure, see the reasons above", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
