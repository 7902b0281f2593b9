"""How rows are laid out: packed where the model can read that, said aloud where it cannot, and nothing changes."""

from pathlib import Path

import pytest
import torch
from tiny import Tiny, column, run_stage
from transformers import MistralConfig, MistralForCausalLM

from rlhf_cli.models.load import load_policy_for_sampling
from rlhf_cli.models.save import save_model

row_stage = pytest.mark.parametrize("stage", ["sft", "train-rm", "dpo"])


@pytest.fixture
def mistral(tiny: Tiny, work: Path) -> str:
    """A model that looks back eight tokens, or as many as a test asks for."""
    loaded = load_policy_for_sampling(tiny.model)
    shape = {k: v for k, v in loaded.model.config.to_dict().items() if k in MistralConfig().to_dict()}
    torch.manual_seed(1)
    config = MistralConfig(**shape | {"sliding_window": 8, "model_type": "mistral"})
    save_model(MistralForCausalLM(config), loaded.vocabulary, work / "mistral")
    return str(work / "mistral")


@row_stage
def test_a_model_that_cannot_read_packed_rows_is_said_to_be_slower(
    stage: str, mistral: str, tiny: Tiny, work: Path, capsys: pytest.CaptureFixture[str]
):
    run = run_stage(stage, tiny.settings(stage, model__path=mistral), work)
    said = "slower: rows are padded, and every answer gets a copy of its prompt, because Mistral"
    assert said in capsys.readouterr().err
    assert said in run.dir.log.read_text()
    assert "it looks back fewer tokens than the longest row has" in run.dir.log.read_text()
    assert len(column(run.dir, "loss")) == 4


@row_stage
@pytest.mark.parametrize("lora", [None, {"rank": 4}], ids=["full", "lora"])
def test_packed_rows_learn_what_padded_rows_learn(
    stage: str, lora: object, tiny: Tiny, work: Path, capsys: pytest.CaptureFixture[str]
):
    """Eager attention takes no packed rows."""
    losses, norms = [], []
    for attention in ("auto", "eager"):
        changes = {"run_dir": attention, "model__attention": attention, "model__lora": lora}
        run = run_stage(stage, tiny.settings(stage, **changes), work)
        losses.append(column(run.dir, "loss"))
        norms.append(column(run.dir, "grad_norm"))
        assert ("slower" in capsys.readouterr().err) == (attention == "eager")
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
