"""Architectures keep their dropout rates in different places; all of them must be found."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedConfig,
)

from rlhf_cli.models.device import disable_dropout

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "gpt2": GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, attn_pdrop=0.5, resid_pdrop=0.5),
    "opt": OPTConfig(**SIZES, ffn_dim=16, word_embed_proj_dim=16, dropout=0.5, attention_dropout=0.5),
    "bloom": BloomConfig(vocab_size=40, hidden_size=16, n_layer=2, n_head=2, hidden_dropout=0.5),
    "neox": GPTNeoXConfig(**SIZES, intermediate_size=16, hidden_dropout=0.5, attention_dropout=0.5),
    "phi": PhiConfig(**SIZES, intermediate_size=16, resid_pdrop=0.5, embd_pdrop=0.5, attention_dropout=0.5),
    "llama": LlamaConfig(**SIZES, intermediate_size=16, attention_dropout=0.5),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_in_training_mode_answers_twice_alike(name: str):
    config: PreTrainedConfig = CONFIGS[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).train()
    ids = torch.randint(3, 40, (2, 9))

    def logits() -> torch.Tensor:
        output: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return output

    with torch.no_grad():
        assert not torch.equal(logits(), logits())
        disable_dropout(model)
        assert torch.equal(logits(), logits())
