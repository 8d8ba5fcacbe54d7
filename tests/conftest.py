"""Fixtures that all tests share."""

import os

# The tensors here are too small to share, and where something else runs on the machine threads
# that wait for a busy core are many times slower than one. So it is in the processes that tests
# start. OpenMP reads this as it is loaded, with torch.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import HealthCheck, settings

from deepfovea.metrics.vdp import import_predictor

# No example may fail because the machine has other work.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

TOGETHER = {
    *("test_engine.py", "test_export.py", "test_extending.py", "test_package.py", "test_page.py"),
    *("test_viewer_browser.py", "test_viewer_firefox.py", "test_viewer_proxy.py"),
}
"""Files whose tests share what takes long to make: traced networks, a package or a copy of it, a
built page, a server and a browser."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Every free process takes the next test, but the tests of a file in TOGETHER go to one.

    Not by marks of xdist_group: with pytest 9.2, xdist 3.8 does not see them.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return file if file.rpartition("/")[2] in TOGETHER else nodeid

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def predictor():
    """``pyfvvdp`` or ``pycvvdp`` by its name; the test is skipped where it is not installed."""

    def package(name):
        try:
            return import_predictor(name)
        except ModuleNotFoundError as error:
            pytest.skip(f"{error.name or error} is not installed (extras jod and cvvdp)")

    return package


@pytest.fixture
def bench_in_this_process(monkeypatch):
    """Benchmarks start no process for each row; tests/test_bench.py claims that they do."""
    monkeypatch.setattr(
        "deepfovea.runtime.bench.call_in_fresh_process", lambda measure, *given: measure(*given)
    )


@pytest.fixture(autouse=True, scope="session")
def cache_of_engines(tmp_path_factory):
    """Keep what engines compile out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user-cache")))
        yield
