"""Every command and every Python example of the documentation works."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from measured_texts import GEMM_TABLE, NCCL_TESTS

import traincast

ROOT = Path(traincast.__file__).parent
GUIDE = (ROOT / "docs/guide.md").read_text()
EXAMPLE = ROOT / "docs/example/digits_net.py"


MYNET = """from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(32, 10))
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_command_of_the_guide_runs(tmp_path):
    """In order, in one directory, as a reader would type them."""
    (tmp_path / "mine.yaml").write_text(blocks("yaml")[0])
    (tmp_path / "all_reduce.txt").write_text(NCCL_TESTS)
    (tmp_path / "gemms.csv").write_text(GEMM_TABLE)
    (tmp_path / "mynet.py").write_text(MYNET)
    shutil.copy(EXAMPLE, tmp_path)
    commands = [line[2:] for block in blocks("console") for line in block.splitlines() if line[:2] == "$ "]
    assert len(commands) > 8
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "traincast"
        done = subprocess.run(
            [sys.executable, "-m", "traincast", *arguments], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout or "wrote" in done.stderr


def test_the_example_module_is_the_guides():
    assert EXAMPLE.read_text() in blocks("python")


def test_every_python_example_runs(tmp_path):
    for code in blocks("python"):
        if code == EXAMPLE.read_text():
            continue  # it is run by a command
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        step, mfu = map(float, done.stdout.split())
        assert step > 0
        assert 0 < mfu < 1
