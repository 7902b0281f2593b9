"""The promises of vLLM rollouts against real servers, which scripts/vllm_server starts from an environment you name.

RLHF_VLLM_ENV=.vllm scripts/test tests/rollout/test_real_vllm.py
"""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file
from tiny import Settings, Tiny, column, run_stage, save_tiny_model

from rlhf_cli.errors import UnavailableError
from rlhf_cli.rollout.vllm_server import VllmServer
from rlhf_cli.run.directory import RunDir
from scripts.bench.vllm_process import VllmProcess, vllm_serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def env() -> Path:
    """The environment of vLLM."""
    named = os.environ.get("RLHF_VLLM_ENV")
    if not named:
        pytest.skip("no environment of vLLM is named in RLHF_VLLM_ENV")
    return Path(named).resolve()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that vLLM takes on a CPU: heads of 32, embeddings not tied."""
    folder = tmp_path_factory.mktemp("real") / "model"
    save_tiny_model(folder, hidden_size=64, tied=False)
    return folder


@pytest.fixture(scope="module")
def server(env: Path, model: Path) -> Iterator[VllmProcess]:
    with vllm_serving(model, env, model.parent / "server.log") as process:
        yield process


def settings_for(tiny: Tiny, model: Path, url: str, run_dir: str) -> Settings:
    rollout = {"engine": "vllm", "url": url, "batch_size": 32, "max_new_tokens": 12, "tolerance": 1e-4}
    return tiny.settings(
        "ppo", run_dir=run_dir, model={"path": str(model)}, rollout=rollout, ppo__iterations=4
    )


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_every_answer_is_as_likely_there_as_here(
    tiny: Tiny, work: Path, model: Path, server: VllmProcess, lora: Settings | None
):
    settings = settings_for(tiny, model, server.url, "whole")
    settings["model"]["lora"] = lora
    run = run_stage("ppo", settings, work)
    mismatches = column(run.dir, "rollout_mismatch_max")  # over all tokens after each hand-over
    assert len(mismatches) >= 4
    assert max(mismatches) < 1e-4


def test_tied_embeddings_never_end_in_wrong_training(tiny: Tiny, work: Path, env: Path):
    save_tiny_model(work / "tied", hidden_size=64)
    said = ""
    with vllm_serving(work / "tied", env, work / "server.log") as own:
        try:
            run_stage("ppo", settings_for(tiny, work / "tied", own.url, "ppo_tied"), work)
        except UnavailableError as error:
            said = str(error)
    if said:
        assert "tied embeddings" in said
    else:  # a vLLM that reloads them
        assert max(column(RunDir(work / "ppo_tied"), "rollout_mismatch_max")) < 1e-4


def test_a_server_that_is_killed_and_started_again_changes_nothing(
    tiny: Tiny, work: Path, monkeypatch: pytest.MonkeyPatch, env: Path, model: Path, server: VllmProcess
):
    whole = run_stage("ppo", settings_for(tiny, model, server.url, "whole"), work)
    load = VllmServer.load_weights
    with vllm_serving(model, env, work / "server.log") as doomed:

        def load_and_die(self: VllmServer, folder: Path, version: str) -> None:
            load(self, folder, version)
            if version.endswith("-2"):
                doomed.kill()

        with monkeypatch.context() as patch:
            patch.setattr(VllmServer, "load_weights", load_and_die)
            with pytest.raises(UnavailableError, match="no connection"):
                run_stage("ppo", settings_for(tiny, model, doomed.url, "broken"), work)
    httpx.post(f"{server.url}/pause?mode=wait", timeout=60)  # as a killed trainer leaves it
    run = run_stage("ppo", settings_for(tiny, model, server.url, "broken"), work)
    one, other = (load_file(it.dir.model / "model.safetensors") for it in (whole, run))
    for name in one:  # the server adds up in an order of its own each time
        assert torch.allclose(one[name], other[name], atol=1e-5), name
