"""What all tests share. Under CI a skipped test is a failure: there, everything a test needs is installed."""

import contextlib
import os

import pytest

from tests import shared

with contextlib.suppress(ImportError):  # tests/launch has none
    from hypothesis import settings

    settings.register_profile("unhurried", deadline=None)  # a busy machine fails no test by its time
    settings.load_profile("unhurried")

with contextlib.suppress(ImportError):
    from moto.core.config import default_user_config

    from tests import transactions

    # A new boto3 session reads the models of every service again, 0.3 s a test; what moto holds is new all the same.
    default_user_config["core"]["reset_boto3_session"] = False
    transactions.copy_what_they_write()


LONGEST_FIRST = ("tests/stack/test_retrain.py", "tests/stack/", "tests/local/", "tests/training/test_job.py")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long groups start first: one that starts last runs alone at the end, when the other workers have nothing left."""

    def rank(item: pytest.Item) -> int:
        return next((n for n, start in enumerate(LONGEST_FIRST) if item.nodeid.startswith(start)), len(LONGEST_FIRST))

    items.sort(key=rank)


def pytest_collection_finish(session: pytest.Session) -> None:
    """pytest-xdist tells the groups of tests by their ids. A pytest that does not let it would spread them over all
    workers without a word, as 9.2 does with pytest-xdist 3.8."""
    if getattr(session.config.option, "loadgroup", False):
        lost = [item for item in session.items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
        assert not lost, f"pytest {pytest.__version__} keeps no groups together: {lost[0].nodeid}"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # the process that started the workers does the rest, once they have ended
    factory: pytest.TempPathFactory | None = getattr(session.config, "_tmp_path_factory", None)
    if factory and (factory._basetemp or session.config.option.numprocesses):
        shared.stop_all(factory)
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter and reporter.stats.get("skipped"):
        reporter.write_line("")
        reporter.write_line("CI: a skipped test is a failure, see the reasons above", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
