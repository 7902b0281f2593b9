"""Rollouts on a server that stands in for vLLM: what is handed over, what is proven, and every way it can fail."""

import json
import threading
from pathlib import Path

import httpx
import pytest
import torch
from tiny import Tiny, column, run_stage, save_tiny_model
from vllm_stand_in import serving

from rlhf_cli.config.sections import Lora, Model
from rlhf_cli.errors import Preempted, UnavailableError
from rlhf_cli.models.device import autocast_for
from rlhf_cli.models.load import LoadedModel, load_policy, load_vocabulary
from rlhf_cli.rollout.engine import Sampling
from rlhf_cli.rollout.vllm_engine import VllmEngine
from rlhf_cli.rollout.vllm_server import VllmServer

PROMPTS = [[5, 6, 7, 8], [9, 10], [11]]
SHARED = Path(__file__).parents[3] / "shared"


def open_policy(tiny: Tiny, *, lora: bool = False) -> LoadedModel:
    section = Model(path=tiny.model, lora=Lora(rank=2) if lora else None)
    return load_policy(section, load_vocabulary(section))


def engine_for(url: str, policy: LoadedModel, folder: Path, *, timeout_seconds: float = 20.0) -> VllmEngine:
    server = VllmServer(url, timeout_seconds=timeout_seconds)
    server.check()
    return VllmEngine(
        server,
        policy,
        folder=folder,
        proof_prompts=PROMPTS,
        tolerance=1e-4,
        autocast=autocast_for("float32", policy.device, 0),
    )


def sampling_of(policy: LoadedModel, max_new_tokens: int = 6) -> Sampling:
    return Sampling(1.0, 1.0, max_new_tokens, policy.vocabulary.stop_ids)


def change(policy: LoadedModel) -> None:
    """Move the weights that learn so far that nobody could take the old ones for them."""
    torch.manual_seed(0)
    for parameter in policy.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.5 * torch.randn_like(parameter)


@pytest.mark.parametrize("lora", [False, True])
def test_the_server_samples_from_the_weights_handed_over(tiny: Tiny, work: Path, lora: bool):
    policy = open_policy(tiny, lora=lora)
    before = {name: tensor.clone() for name, tensor in policy.core.state_dict().items()}
    with serving(tiny.model) as server:
        engine = engine_for(server.url, policy, work / "handover")
        engine.refresh(0)
        change(policy)
        changed = {name: tensor.clone() for name, tensor in policy.core.state_dict().items()}
        engine.refresh(1)  # raises unless the server's log-probs are now the changed policy's
        completions = engine.generate(PROMPTS, sampling_of(policy), [1, 2, 3])
        again = engine.generate(PROMPTS, sampling_of(policy), [1, 2, 3])
    assert completions == again
    assert all(len(c.token_ids) == len(c.logprobs) for c in completions)
    assert any(not torch.equal(before[name], changed[name]) for name in before)
    for name, tensor in policy.core.state_dict().items():
        assert torch.equal(tensor, changed[name]), f"the hand-over changed {name}"


def test_weights_are_handed_over_once_for_each_iteration(tiny: Tiny, work: Path):
    policy = open_policy(tiny)
    with serving(tiny.model) as server:
        engine = engine_for(server.url, policy, work / "handover")
        for iteration in (0, 0, 1, 1):
            engine.refresh(iteration)
        assert [name.rpartition("-")[2] for name in server.loaded] == ["0", "1"]
        assert [path.name for path in (work / "handover").iterdir()] == server.loaded[-1:]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"keeps_weights": True}, "nats off the policy's after a hand-over"),
        ({"keeps_tensor": "model.norm.weight"}, "nats off the policy's after a hand-over"),
        ({"temperature": 1.3}, "nats off the policy's after a hand-over"),
        ({"top_p": 0.9}, "nats off the policy's after a hand-over"),
        ({"forgets_version": True}, "right after it was given"),
        ({"raw_logprobs": True}, "processed_logprobs"),
        ({"max_length": 12}, "of 16 tokens (length); --max-model-len may be too small"),
        ({"dies_after": 1}, "HTTP 500"),
        ({"no_dev_mode": True}, "development mode"),
    ],
)
def test_a_hand_over_that_did_not_take_is_an_error(tiny: Tiny, work: Path, fault, says: str):
    policy = open_policy(tiny)
    change(policy)
    with serving(tiny.model, **fault) as server, pytest.raises(UnavailableError) as raised:
        engine_for(server.url, policy, work / "handover").refresh(0)
    assert says in str(raised.value)
    assert server.url in str(raised.value)


def test_a_server_of_another_model_is_an_error(tiny: Tiny, work: Path):
    policy = open_policy(tiny)
    save_tiny_model(work / "other", vocab_size=320)
    with serving(work / "other") as server, pytest.raises(UnavailableError, match="HTTP 500") as raised:
        engine_for(server.url, policy, work / "handover").refresh(0)
    assert "serve the model that is trained" in str(raised.value)


def test_other_weights_than_those_handed_over_are_refused(tiny: Tiny, work: Path):
    policy = open_policy(tiny)
    with serving(tiny.model) as server:
        engine = engine_for(server.url, policy, work / "handover")
        engine.refresh(0)
        server.version = "another-run"
        with pytest.raises(UnavailableError, match="weights another-run have answered"):
            engine.generate(PROMPTS, sampling_of(policy), [1, 2, 3])


def test_a_paused_server_is_a_time_out_not_a_wait_for_ever(tiny: Tiny, work: Path):
    policy = open_policy(tiny)
    with serving(tiny.model) as server:
        engine = engine_for(server.url, policy, work / "handover", timeout_seconds=1.0)
        engine.refresh(0)
        server.running.clear()
        with pytest.raises(UnavailableError, match="no answer within 1 s"):
            engine.generate(PROMPTS, sampling_of(policy), [1, 2, 3])


def test_a_load_that_takes_too_long_is_a_time_out_and_the_server_goes_on(tiny: Tiny, work: Path):
    policy = open_policy(tiny)
    with serving(tiny.model, holds_load=0) as server:
        engine = engine_for(server.url, policy, work / "handover", timeout_seconds=1.0)
        with pytest.raises(UnavailableError, match="no answer within 1 s") as raised:
            engine.refresh(0)
        assert server.running.is_set()
    assert "/collective_rpc" in str(raised.value)


def test_a_signal_ends_the_wait_for_new_weights(tiny: Tiny, work: Path):
    with serving(tiny.model, holds_load=0) as server:
        client = VllmServer(server.url, timeout_seconds=600, should_stop=server.load_began.is_set)
        with pytest.raises(Preempted):
            client.load_weights(Path(tiny.model), "1")
        assert server.running.is_set()


def test_a_server_that_was_left_paused_goes_on(tiny: Tiny, work: Path):
    policy = open_policy(tiny)
    with serving(tiny.model) as server:
        server.running.clear()
        engine = engine_for(server.url, policy, work / "handover")
        engine.refresh(0)
        assert len(engine.generate(PROMPTS, sampling_of(policy), [1, 2, 3])) == 3


def test_a_signal_ends_the_wait_for_answers(tiny: Tiny, work: Path):
    policy = open_policy(tiny)
    stop = threading.Event()
    with serving(tiny.model) as server:
        server.running.clear()  # no answer ever comes
        client = VllmServer(server.url, timeout_seconds=600, should_stop=stop.is_set)
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(Preempted):
            client.generate(PROMPTS, sampling_of(policy), [1, 2, 3])


def test_a_server_that_is_not_there_is_said_at_once():
    with pytest.raises(UnavailableError, match="no connection"):
        VllmServer("http://127.0.0.1:9", timeout_seconds=1).check()


def test_ppo_learns_from_a_server(tiny: Tiny, work: Path):
    with serving(tiny.model) as server:
        rollout = {"engine": "vllm", "url": server.url, "batch_size": 8, "max_new_tokens": 6}
        run = run_stage("ppo", tiny.settings("ppo", rollout=rollout), work)
    assert max(column(run.dir, "rollout_mismatch")) <= max(column(run.dir, "rollout_mismatch_max")) < 1e-4
    assert {name.rpartition("-")[2] for name in server.loaded} == {"0", "1"}


def test_the_stand_in_answers_like_the_real_server_that_was_recorded():
    recorded = SHARED / "fixtures" / "vllm_cpu_0.32.0.jsonl"
    if not recorded.exists():
        pytest.skip("the recorded exchanges with a real server are not here")
    unlike = {"/v1/models", "/v1/completions", "/weight_checker"}  # not used by us, not in the stand-in
    exchanges = [json.loads(line) for line in recorded.read_text().splitlines()]
    with serving(SHARED / "models" / "stories260K-untied32") as server, httpx.Client() as client:
        for exchange in exchanges[:32]:
            path, body = exchange["path"], exchange["body"]
            if path in unlike:
                continue
            if path == "/collective_rpc" and "kwargs" in body and "MODELS" in body["kwargs"]["weights_path"]:
                body["kwargs"]["weights_path"] = str(SHARED / "models" / "stories260K-untied32")
            response = client.request(exchange["method"], server.url + path, json=body)
            assert response.status_code == exchange["status"], exchange
            if response.status_code == 200 and "generate" in path and "n" not in body["sampling_params"]:
                ours, theirs = response.json()["choices"][0], exchange["response"]["choices"][0]
                assert ours["token_ids"] == theirs["token_ids"]
                assert set(ours) <= set(theirs)
                assert ours["weight_versions"] == theirs["weight_versions"]
                for mine, real in zip(
                    ours["logprobs"]["content"], theirs["logprobs"]["content"], strict=True
                ):
                    assert mine["logprob"] == pytest.approx(real["logprob"], abs=1e-4)
