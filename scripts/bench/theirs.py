"""TRL's side of a comparison, run inside TRL's own environment: python theirs.py SPEC.json RESULT.json

Everything is TRL's default but what both sides are told: rows and their order, batch size, precision, learning rate,
number of passes, and no evaluation, saves or reports to other services.
"""

import inspect
import json
import sys
import time
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

Spec = dict[str, Any]


def main() -> None:
    """Train, write seconds and losses, then save the model for scoring."""
    spec: Spec = json.loads(Path(sys.argv[1]).read_text())
    make = {"sft": make_sft, "train-rm": make_reward, "dpo": make_dpo, "ppo": make_ppo}[spec["stage"]]
    trainer = make(spec)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    history = [row for row in trainer.state.log_history if "train_runtime" not in row]
    Path(sys.argv[2]).write_text(json.dumps({"seconds": seconds, "history": history}))
    if spec["stage"] != "ppo":
        trainer.save_model(f"{spec['out']}/model")


def common(spec: Spec, kind: type[TrainingArguments], **more: object) -> TrainingArguments:
    """Give the arguments every stage is told; the ordered rows are walked as they stand where TRL can."""
    settings = {
        "output_dir": spec["out"],
        "per_device_train_batch_size": spec["batch_size"],
        "num_train_epochs": spec["epochs"],
        "learning_rate": spec["lr"],
        "max_length": spec["max_length"],
        "bf16": spec["precision"] == "bfloat16",
        "use_cpu": spec["device"] == "cpu",
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **more,
    }
    if not spec["their_checkpointing"]:
        settings["gradient_checkpointing"] = False
    known = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in settings.items() if name in known})


def rows_of(spec: Spec) -> Dataset:
    return load_dataset(
        "json", data_files=spec["ordered_rows"], split="train", cache_dir=f"{spec['out']}/cache"
    )


def make_sft(spec: Spec) -> Trainer:
    """Fine-tune on prompt and completion; the loss is on the completion, as TRL chooses for such rows."""
    from trl import SFTConfig, SFTTrainer

    model = AutoModelForCausalLM.from_pretrained(spec["model"])
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    return SFTTrainer(model, common(spec, SFTConfig), train_dataset=rows_of(spec), processing_class=tokenizer)


def make_reward(spec: Spec) -> Trainer:
    """Train the reward model from the head `rlhf train-rm` starts from."""
    from trl import RewardConfig, RewardTrainer

    model = AutoModelForSequenceClassification.from_pretrained(spec["classifier"], num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    arguments = common(spec, RewardConfig)
    return RewardTrainer(model, arguments, train_dataset=rows_of(spec), processing_class=tokenizer)


def make_dpo(spec: Spec) -> Trainer:
    """Train on pairs; TRL loads the reference itself and scores each batch with it."""
    from trl import DPOConfig, DPOTrainer

    model = AutoModelForCausalLM.from_pretrained(spec["model"])
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    arguments = common(spec, DPOConfig, beta=spec["beta"])
    return DPOTrainer(model, args=arguments, train_dataset=rows_of(spec), processing_class=tokenizer)


def make_ppo(spec: Spec) -> Trainer:
    """Run one iteration over all prompts in micro-batches of the batch size, and one optimizer step per pass."""
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(spec["model"], padding_side="left")
    rows = rows_of(spec)
    prompts = rows.map(
        lambda row: {"input_ids": tokenizer(row["prompt"])["input_ids"]}, remove_columns=rows.column_names
    )
    policy, reference = (AutoModelForCausalLM.from_pretrained(spec["model"]) for _ in range(2))
    reward, critic = (
        AutoModelForSequenceClassification.from_pretrained(spec["classifier"], num_labels=1) for _ in range(2)
    )
    arguments = common(
        spec,
        PPOConfig,
        gradient_accumulation_steps=spec["rollout_batch_size"] // spec["batch_size"],
        total_episodes=len(prompts),
        response_length=spec["max_new_tokens"],
        num_ppo_epochs=spec["ppo_epochs"],
        temperature=1.0,
        num_sample_generations=0,
    )
    return PPOTrainer(
        args=arguments,
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=reward,
        value_model=critic,
        train_dataset=prompts,
        eval_dataset=prompts,
    )


if __name__ == "__main__":
    main()
