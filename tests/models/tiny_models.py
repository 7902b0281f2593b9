"""Random models of many families, a few thousand parameters each, with weights large enough to tell things apart."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rlhf_cli.models.load import Vocabulary
from rlhf_cli.models.tokenizer import train_tokenizer

VOCAB = 258
GENERAL = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1,
    "initializer_range": 0.2, "max_position_embeddings": 64,
}  # fmt: skip
GROUPED = GENERAL | {"num_key_value_heads": 2}
ABSOLUTE = {
    "vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": None,
    "eos_token_id": 0, "pad_token_id": 1, "initializer_range": 0.2,
}  # fmt: skip
RECURRENT = {
    "vocab_size": VOCAB, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "bos_token_id": None,
    "eos_token_id": 0, "pad_token_id": 1,
}  # fmt: skip
CAPPED = GROUPED | {"head_dim": 8, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 5.0}

MODELS = {
    "llama": lambda **o: LlamaForCausalLM(LlamaConfig(**GROUPED | o)),
    "tied llama": lambda **o: LlamaForCausalLM(LlamaConfig(**GROUPED | {"tie_word_embeddings": True} | o)),
    "qwen2": lambda **o: Qwen2ForCausalLM(Qwen2Config(**GROUPED | o)),
    "qwen3": lambda **o: Qwen3ForCausalLM(Qwen3Config(**GROUPED | {"head_dim": 8} | o)),
    "gemma2": lambda **o: Gemma2ForCausalLM(Gemma2Config(**CAPPED | o)),
    "gemma": lambda **o: GemmaForCausalLM(GemmaConfig(**GROUPED | {"head_dim": 8} | o)),
    "gemma3": lambda **o: Gemma3ForCausalLM(
        Gemma3TextConfig(**GROUPED | {"head_dim": 8, "sliding_window": 6, "num_hidden_layers": 6} | o)
    ),
    "gpt2": lambda **o: GPT2LMHeadModel(GPT2Config(**ABSOLUTE | o)),
    "neox": lambda **o: GPTNeoXForCausalLM(GPTNeoXConfig(**GENERAL | o)),
    "lfm2": lambda **o: Lfm2ForCausalLM(  # layers that mix a token with the two before it
        Lfm2Config(**GROUPED | {"layer_types": ["conv", "full_attention"]} | o)
    ),
    "mamba": lambda **o: MambaForCausalLM(MambaConfig(**RECURRENT | o)),
    "mistral": lambda **o: MistralForCausalLM(MistralConfig(**GROUPED | {"sliding_window": 6} | o)),
}


def build(name: str = "llama", seed: int = 0, **options) -> PreTrainedModel:
    torch.manual_seed(seed)
    return MODELS[name](**options).eval()


def tokenizer_of_bytes() -> PreTrainedTokenizerBase:
    """One token per byte, EOS 0, PAD 1."""
    return train_tokenizer([], VOCAB)


def without_pad() -> PreTrainedTokenizerBase:
    """One token per byte, EOS 256, no PAD and no UNK."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")


def vocabulary() -> Vocabulary:
    return Vocabulary(tokenizer_of_bytes(), (0,), 64)


def saved(
    folder: Path, name: str = "llama", tokenizer: PreTrainedTokenizerBase | None = None, **options
) -> str:
    """Save a random model with its tokenizer as plain transformers does, and give its path."""
    build(name, **options).save_pretrained(folder)
    (tokenizer or tokenizer_of_bytes()).save_pretrained(folder)
    return str(folder)


def stir(model: nn.Module, seed: int = 1) -> None:
    """Move every trainable parameter; fresh adapters do nothing before that."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
