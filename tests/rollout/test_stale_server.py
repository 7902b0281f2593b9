"""A server that goes on with its old weights, let through by a tolerance far too wide: the doctor still tells."""

from pathlib import Path

from tiny import Tiny, override, rules_told, run_stage
from vllm_stand_in import serving


def test_answers_of_the_old_weights_have_a_negative_kl(tiny: Tiny, work: Path):
    changes = {"train__max_steps": 40, "train__batch_size": 12, "optim__lr": 0.01}
    sft = run_stage("sft", tiny.settings("sft", **changes), work)
    with serving(sft.dir.model, keeps_weights=True) as server:
        rollout = {"engine": "vllm", "url": server.url, "tolerance": 50.0, "max_new_tokens": 12}
        ppo = {"iterations": 5, "kl": {"coef": 0.0}}
        settings = tiny.settings("ppo", model__path=str(sft.dir.root), optim__lr=0.01)
        run = run_stage("ppo", override(settings, rollout=rollout, ppo=ppo), work)
    assert "kl_is_negative" in rules_told(run)
