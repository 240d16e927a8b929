"""The programs of Kubernetes, built once by scripts/kubernetes_tools."""

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "kubernetes_tools"


def tools(*groups: str) -> Path:
    """The folder with the programs of these groups; builds what is missing, which takes minutes the first time.

    Raises:
        RuntimeError: they cannot be built.
    """
    found = subprocess.run([SCRIPT, *groups], stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode != 0:
        raise RuntimeError(
            f"the programs of Kubernetes could not be built: scripts/kubernetes_tools {' '.join(groups)}"
        )
    return Path(found.stdout.strip())


def refusal(*groups: str) -> str:
    """Why these programs are neither there nor can be built here; empty when they are or can."""
    return subprocess.run([SCRIPT, "--check", *groups], capture_output=True, text=True, check=False).stderr.strip()
