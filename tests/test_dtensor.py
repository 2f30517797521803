"""DTensors on two processes, against one process: how each of their checks (dtensor_checks.py) ended on both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dtensor_checks import CHECKS, PROCESSES, latent_checks, objective_checks

pytestmark = pytest.mark.torch_sensitive("placements, their redistribution, and how they are compiled")

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """How each check ended, by process."""
    meeting = tmp_path_factory.mktemp("dtensor") / "meeting"
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-W", "ignore", str(HERE / "dtensor_checks.py")]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([*command, str(rank), str(meeting)], env=environment, **streams) for rank in range(PROCESSES)
    ]
    results = []
    for process in processes:
        out, errors = process.communicate()
        assert process.returncode == 0, f"exit status {process.returncode}\n{errors}"
        results.append(json.loads(out))
    return results


latent_checks()
objective_checks()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", list(CHECKS))
def test_two_processes_are_as_one(ended: list[dict[str, str]], name: str) -> None:
    for rank, of in enumerate(ended):
        assert of[name] == "", f"process {rank}: {of[name]}"


def test_importing_pyvae_does_not_import_dtensor() -> None:
    script = "import sys, torch; before = 'torch.distributed.tensor' in sys.modules; import pyvae; "
    script += "pyvae.elbo_loss(torch.full((2, 2), 0.5).to('meta'), torch.ones(2, 2).to('meta')); "
    script += "print(before, 'torch.distributed.tensor' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], cwd=HERE.parent, capture_output=True, text=True, check=True)
    assert out.stdout == "False False\n"
