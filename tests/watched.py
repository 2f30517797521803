"""Tests of which nothing gets lost: `PYTHONPATH=tests python -m pytest -v -p watched --seconds-each 60`.

**A limit of time for each.** A test past it fails at the line where it is, by a signal. Python sees signals only
between two steps of its own, which what hangs within C++, or waits for a GPU that does, never comes to. `--grace`
seconds later its process therefore writes where each of its threads is, and ends; a thread that needs no interpreter
does so, which a test that keeps Python's lock cannot stop either. pytest-xdist then names the test, and goes on with
another worker; without xdist that is the end of the run, and the last test in its log is the one.

**Failures at once.** pytest explains them when all tests are over, which may never be.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest

STDERR = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seconds-each", type=float, default=60.0, help="of each test's setup, call and teardown")
    parser.addoption("--grace", type=float, default=5.0, help="seconds more, after which its process ends")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STDERR] = os.dup(2)  # while a test runs, its output goes elsewhere
    if not hasattr(config, "workerinput"):  # workers of xdist report to the process that started them
        config.pluginmanager.register(Failures(config))


class Failures:
    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal:
            terminal.write_line(f"\n{report.nodeid}, {report.when}:\n{report.longreprtext}")


@contextmanager
def limited(item: pytest.Item) -> Iterator[None]:
    seconds, grace = map(item.config.getoption, ("--seconds-each", "--grace"))

    def expire(*_: object) -> None:
        pytest.fail(f"{item.nodeid} took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + grace, exit=True, file=item.config.stash[STDERR])
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    with limited(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with limited(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    with limited(item):
        return (yield)
