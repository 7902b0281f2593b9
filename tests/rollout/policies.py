"""Small random policies, a way to sample from them, and prompts of many lengths."""

import random
from contextlib import nullcontext

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rlhf_cli.rollout.engine import Sampling
from rlhf_cli.rollout.transformers_engine import TransformersEngine

PAD, VOCAB, STOPS = 0, 61, (1, 5, 7, 9)
GENERAL = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "bos_token_id": None, "eos_token_id": None, "initializer_range": 0.2,
}  # fmt: skip
GROUPED = GENERAL | {"num_key_value_heads": 2}
ABSOLUTE = {
    "vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, "bos_token_id": None,
    "eos_token_id": None, "initializer_range": 0.2,
}  # fmt: skip


def lora() -> PreTrainedModel:
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**GROUPED)), LoraConfig(target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, which would make the adapter a no-op
            torch.nn.init.normal_(parameter, std=0.2)
    return model


MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED)),
    "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**GENERAL)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**ABSOLUTE)),
    "sliding": lambda: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=8)),
    "lora": lora,
}


def build(name: str = "llama") -> PreTrainedModel:
    torch.manual_seed(0)
    return MODELS[name]().eval()


def engine_of(model: PreTrainedModel, *, chunk_size: int = 8, **options) -> TransformersEngine:
    return TransformersEngine(model, PAD, chunk_size=chunk_size, autocast=nullcontext, **options)


def sampling_of(*, temperature=1.0, top_p=1.0, max_new_tokens=20, stop_ids=STOPS) -> Sampling:
    return Sampling(temperature, top_p, max_new_tokens, stop_ids)


chooser = random.Random(2)
PROMPTS = [[chooser.randrange(2, VOCAB) for _ in range(chooser.randint(1, 20))] for _ in range(21)]
SEEDS = list(range(100, 121))


def ids_of(completions):
    return [completion.token_ids for completion in completions]
