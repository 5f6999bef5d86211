"""Fixtures that the integration and the chaos tests share."""

import nginx as nginx_server
import pytest
import topics as topics_client


@pytest.fixture(scope="session")
def protos(tmp_path_factory):
    return topics_client.compile_protos(tmp_path_factory.mktemp("protos"))


@pytest.fixture(scope="session")
def nginx(tmp_path_factory):
    server = nginx_server.Nginx(tmp_path_factory.mktemp("nginx")).start()
    yield server
    server.stop()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call":
        item.failed = outcome.get_result().failed
