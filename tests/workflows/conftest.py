"""The server's client for the tests of workflows, with what the workflows load in place."""

import pytest

from tools.comfy_client import ComfyClient
from tools.comfy_server import ComfyServer, copy_inputs
from tools.demo import INPUTS


@pytest.fixture(scope="session")
def client(server: ComfyServer) -> ComfyClient:
    made = ComfyClient(server.url, server.check_alive)
    copy_inputs(INPUTS, server.base)
    return made
