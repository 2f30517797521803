"""Where rows are measured: the processor, the versions and the commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import torch

import pyvae

from . import ROOT, Environment


def printed(*command: str) -> str:
    """What `command` prints, or nothing where it is missing or fails."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def environment(device: str) -> Environment:
    """Of the CPU or of the current CUDA device."""
    info = pyvae.build_info()
    commit = printed("git", "describe", "--always", "--dirty", "--exclude=*") or os.environ.get("PYVAE_COMMIT")
    versions = info["torch"], info["pyvae"], commit or "unknown"
    if device == "cpu":
        models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        kernels = info["instruction_set"] if info["instruction_set"] not in (None, "none") else "reference"
        return Environment("cpu", models[0] if models else platform.machine(), kernels, *versions)
    kernels = "sm_{}{}".format(*torch.cuda.get_device_capability()) if info["cuda_architectures"] else "reference"
    driver = printed("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines() or ["unknown"]
    return Environment("cuda", torch.cuda.get_device_name(), kernels, *versions, driver[0], torch.version.cuda)
