"""Stand-ins for the programs of Slurm, which record how they are called."""

import os
from pathlib import Path

import pytest

RECORD = """#!/bin/bash
{ printf '%s' "${0##*/}"; printf '|%s' "$@"; echo; } >> "$CALLS"
"""
STAND_INS = {
    "sbatch": 'n=$(grep -c ^sbatch "$CALLS"); [[ $n != "$REFUSED" ]] || { echo no such partition >&2; exit 1; }\n'
    'echo "$n;cluster"',
    "srun": 'exit "$STAGE_ENDS_WITH"',
    "squeue": 'echo "$STATE"',
    "scontrol": "if [[ $1 == show ]]; then echo node7; echo node8; fi",
    "rlhf": "",
}


def put_into_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put stand-ins into PATH; return the file of their command lines, one a line."""
    programs = folder / "bin"
    programs.mkdir()
    for name, body in STAND_INS.items():
        (programs / name).write_text(RECORD + body + "\n")
        (programs / name).chmod(0o755)
    calls = folder / "calls.txt"
    calls.touch()
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(calls), "REFUSED": "", "STATE": "RUNNING None",
        "SLURM_JOB_ID": "40041", "SLURM_JOB_NODELIST": "node[7-8]", "STAGE_ENDS_WITH": "0",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    return calls


def lines_of(calls: Path, program: str) -> list[str]:
    return [line for line in calls.read_text().splitlines() if line.startswith(f"{program}|")]
