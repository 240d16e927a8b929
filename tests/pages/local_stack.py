"""Runs a page's blocks against a local stack, which the page starts itself or finds with the demo's documents."""

import re
import socket
from pathlib import Path

from dragon_runtime.servers.mosquitto import free_port
from tests.pages.page import Page, Run
from tests.pages.workspace import Workspace

PORT = 8642
"""What pages say, and `dragonctl up` takes when it is free."""
DOCUMENTS = "dragon_cli/demo_documents"
STARTS = re.compile(r"\bdragonctl up\b")


def run_page(page: Page, run: Run, scratch: Path, *options: str, seconds: float) -> str:
    """Run the page's blocks; returns what they print. `options` are those of the stack that the page finds.

    Raises:
        AssertionError: a block failed; says which, where it is, and what was printed.
    """
    workspace = Workspace.like_the_checkout(scratch)
    port = PORT if _is_free(PORT) else free_port()
    blocks = page.blocks_run_by(run)
    starts = f"dragonctl up --public-documents {DOCUMENTS}/public {' '.join(options)}"
    adds = f"dragonctl documents add {DOCUMENTS}/private"
    try:
        if not any(STARTS.search(block.text) for block in blocks):
            workspace.run("stack", _at_port(f"{starts}\n{adds}\n", port), seconds=seconds)
        elsewhere = Page(page.name, _at_port(page.text, port))
        return workspace.run_blocks(elsewhere, elsewhere.blocks_run_by(run), seconds=seconds)
    finally:
        workspace.run("down", "dragonctl down", seconds=seconds)


def _at_port(text: str, port: int) -> str:
    """The same for a stack whose API is at another port, because something else has the usual one."""
    if port == PORT:
        return text
    return STARTS.sub(f"dragonctl up --api-port {port}", text).replace(f":{PORT}", f":{port}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
