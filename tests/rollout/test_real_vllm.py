"""The same promises against a real vLLM server, where one is up: scripts/vllm_server MODEL, then name its address.

RLHF_VLLM_URL=http://127.0.0.1:8765 RLHF_VLLM_MODEL=MODEL scripts/test tests/rollout/test_real_vllm.py
"""

import os
from pathlib import Path

import pytest
from tiny import Tiny, column, run_stage

pytestmark = pytest.mark.slow


def test_ppo_learns_from_a_real_server(tiny: Tiny, work: Path):
    url, model = os.environ.get("RLHF_VLLM_URL"), os.environ.get("RLHF_VLLM_MODEL")
    if not (url and model):
        pytest.skip("no vLLM server is named in RLHF_VLLM_URL and RLHF_VLLM_MODEL")
    settings = tiny.settings("ppo", model={"path": model}, ppo__iterations=3)
    settings["rollout"] |= {"engine": "vllm", "url": url, "tolerance": 1e-4}
    run = run_stage("ppo", settings, work)  # every hand-over proves itself, to 1e-4 nats
    mismatches = column(run.dir, "rollout_mismatch")
    assert len(mismatches) >= 3
    assert max(mismatches) < 1e-4
