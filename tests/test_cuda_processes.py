"""Several processes on one GPU, forks, and what could end a process: each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gpu import needs_cuda
from test_noise_repeatable import digests

pytestmark = [needs_cuda, pytest.mark.usefixtures("cuda_kernels", "kernels")]
HERE = Path(__file__).parent


def start(script: str) -> subprocess.Popen[str]:
    """A Python process with the tests' modules; one thread, since a fork does not take OpenMP's threads along."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate()
    assert process.returncode == 0, f"exit status {process.returncode}\n{errors}"
    return out


def test_two_processes_at_the_same_time_give_the_same_bits() -> None:
    script = "import json, test_noise_repeatable; print(json.dumps(test_noise_repeatable.digests('cuda')))"
    processes = [start(script) for _ in range(2)]
    expected = digests("cuda")
    for process in processes:
        assert json.loads(finish(process)) == expected


FORK = """
import os
import torch, pyvae

def on(device):
    mu = torch.linspace(-1, 1, 60, device=device).view(6, 10)
    return pyvae.reparameterize_kl(mu, mu, seed=3)[0].cpu()

want = on("cpu")
assert not torch.cuda.is_initialized(), "importing pyvae, or using it on the CPU, has initialized CUDA"
{before}
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(on({in_child!r}), want) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child failed"
assert torch.equal(on("cuda"), want)
"""


@pytest.mark.parametrize(
    ("before", "in_child"), [("", "cpu"), ("", "cuda"), ("on('cuda')", "cpu")], ids=["cpu", "cuda", "cpu-beside-cuda"]
)
def test_a_forked_process(before: str, in_child: str) -> None:
    """As a DataLoader's workers are: CUDA is untouched until it is used, so that a fork may still use it."""
    finish(start(FORK.format(before=before, in_child=in_child)))


CAPTURED = """
import torch, pyvae

def loss():
    return pyvae.elbo_loss(x, t, likelihood="gaussian")

x = torch.linspace(-2, 2, 4102, device="cuda").view(2, 2051)
t = torch.zeros_like(x)
want = loss()
torch.cuda.synchronize()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    losses = [loss()]
    for _ in range(70_000):
        last = loss()
    losses.append(last)
graph.replay()
losses.append(loss())
side = torch.cuda.Stream()
side.wait_stream(torch.cuda.current_stream())
with torch.cuda.stream(side):
    losses.append(loss())
torch.cuda.synchronize()
print([torch.equal(value, want) for value in losses])
"""


def test_more_captured_launches_than_there_are_counters() -> None:
    """Each takes one of 65,536 for good, to know its last block by; what comes after must do without."""
    assert finish(start(CAPTURED)) == "[True, True, True, True]\n"
