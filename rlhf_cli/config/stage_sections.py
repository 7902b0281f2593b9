"""The sections that belong to one training stage: losses, PPO with its rollouts."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rlhf_cli.config.base import (
    Count,
    Fraction,
    NonNegative,
    Positive,
    Refusal,
    Section,
    Smoothing,
    refuse,
)

SMOOTHED_DPO_LOSSES = ("sigmoid", "sigmoid_norm", "robust", "exo_pair", "aot", "aot_unpaired")


class SftLoss(Section):
    """Which tokens carry the supervised loss."""

    on: Literal["completion", "assistant", "all"] = "completion"
    """Train on the completion, on every assistant turn, or on the prompt as well."""


class RmLoss(Section):
    """The Bradley-Terry loss of the reward model."""

    ties: Literal["drop", "soft"] = "drop"
    """Leave ties out, or train them towards a preference of one half."""
    margin: Literal["none", "column"] = "none"
    """Ask for the score difference in each row's `margin` column."""
    center: NonNegative = 0.0
    """Weight of the penalty on (chosen + rejected score) squared, which keeps scores around zero."""
    label_smoothing: Smoothing = 0.0
    """Assumed share of wrong preferences."""


class DpoLoss(Section):
    """The preference loss and its strength."""

    type: Literal[
        "sigmoid",
        "hinge",
        "ipo",
        "exo_pair",
        "nca_pair",
        "robust",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
        "sigmoid_norm",
        "simpo",
        "orpo",
        "kto",
    ] = "sigmoid"
    """Which loss of the DPO family; `simpo` and `orpo` use no reference, `kto` reads answers with a `label` too."""
    beta: Positive = 0.1
    """How strongly the policy is held to the reference; the factor of the difference in `simpo` and `orpo`."""
    label_smoothing: Smoothing = 0.0
    """Assumed share of wrong preferences; with `sigmoid` this is cDPO."""
    target_margin: NonNegative = 0.0
    """By how much `simpo` wants chosen answers ahead, in its units of beta times nats per token."""
    sft_weight: NonNegative = 0.0
    """Adds this times the negative log-likelihood per token of each chosen answer."""
    good_weight: Positive = 1.0
    """Weight of good answers in `kto`."""
    bad_weight: Positive = 1.0
    """Weight of bad answers in `kto`; weights times numbers of good and bad answers should be about equal."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type == "kto" and self.sft_weight > 0:
            message = "has no effect with loss.type = kto, whose rows are not all good answers"
            refuse([Refusal("sft_weight", message, "remove it")])
        if self.type != "kto" and (self.good_weight, self.bad_weight) != (1.0, 1.0):
            key = "good_weight" if self.good_weight != 1.0 else "bad_weight"
            refuse(
                [Refusal(key, f"has no effect with loss.type = {self.type}", "remove it, or use `type: kto`")]
            )
        if self.target_margin > 0 and self.type != "simpo":
            message = f"has no effect with loss.type = {self.type}"
            refuse([Refusal("target_margin", message, "remove it, or use `type: simpo`")])
        if self.label_smoothing > 0 and self.type not in SMOOTHED_DPO_LOSSES:
            message = f"has no effect with loss.type = {self.type}"
            possible = ", ".join(SMOOTHED_DPO_LOSSES)
            refuse([Refusal("label_smoothing", message, f"remove it, or use a type that has it: {possible}")])
        if self.label_smoothing == 0 and self.type == "exo_pair":
            message = "loss.type = exo_pair takes its logarithm, and it is 0"
            refuse([Refusal("label_smoothing", message, "set it above 0, for example 0.001")])
        return self


class Rollout(Section):
    """How the policy answers the prompts."""

    engine: Literal["transformers", "vllm"] = "transformers"
    """What generates the answers: the model in this process, or a vLLM server."""
    url: str | None = Field(default=None, pattern=r"^https?://[^/\s]+/?$")
    """Address of the vLLM server, which must see this run's directory."""
    timeout_seconds: Positive = 600.0
    """Longest wait for one answer of the server, or for it to read new weights."""
    tolerance: Positive = 0.001
    """Largest difference of a token's log-probability, in nats, between server and policy."""
    importance_cap: Positive = 2.0
    """Largest weight that makes up for a server's other probability of a token."""
    batch_size: Count = 512
    """Answers sampled in one PPO iteration."""
    samples_per_prompt: Count = 1
    """Answers to each prompt; `ppo.advantage: rloo` and `grpo` compare them with each other."""
    max_new_tokens: Count = 256
    """Longest answer, in tokens."""
    temperature: Positive = 1.0
    """Sampling temperature; the old and new log-probabilities use it too."""
    chunk_size: Count = 64
    """Rows decoded together; only speed and memory depend on it."""

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if self.engine == "vllm" and self.url is None:
            refuse(
                [Refusal("url", "is needed with engine: vllm", "give the server's address, http://host:port")]
            )
        if self.engine != "vllm" and self.url is not None:
            refuse(
                [
                    Refusal(
                        "url",
                        f"has no meaning with engine: {self.engine}",
                        "set `engine: vllm`, or remove it",
                    )
                ]
            )
        return self


class Critic(Section):
    """The value model of PPO; only `ppo.advantage: gae` has one."""

    init: Literal["reward", "policy"] = "reward"
    """Where its weights come from: the reward model with its head, or the policy with a new head."""
    share: Literal["none", "trunk"] = "none"
    """`trunk`: no model of its own but a new head on the policy's last hidden states; `init` does not matter then."""
    lr: Positive | None = None
    """Its peak learning rate, that of the head alone with `share: trunk`; null is `optim.lr`."""


class Kl(Section):
    """The price of leaving the reference model, taken off the reward of each token; with `grpo`, added to the loss."""

    coef: NonNegative = 0.05
    """Reward lost for each nat of divergence; the starting value when `target` is set."""
    estimator: Literal["k1"] = "k1"
    """Estimator of the divergence from the sampled tokens: k1 is log p - log p_ref."""
    target: Positive | None = None
    """Divergence per answer, in nats, that `coef` is steered to; null keeps `coef` fixed."""
    horizon: Count = 10_000
    """Answers over which `coef` adapts; only with `target`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.target is not None and self.coef == 0:
            message = "cannot steer ppo.kl.coef = 0, which stays 0 when it is scaled"
            refuse([Refusal("target", message, "start from a positive `coef`")])
        return self


class Ppo(Section):
    """Proximal policy optimisation."""

    epochs: Count = 4
    """Passes over each batch of answers."""
    minibatches: Count = 1
    """Parts of each pass; every part is one optimizer step."""
    clip: Positive = 0.2
    """Largest change of the probability ratio that still has a gradient."""
    value_clip: Positive = 0.2
    """Largest change of a value from the one predicted at sampling time that still has a gradient."""
    value_coef: NonNegative = 0.1
    """Weight of the value loss."""
    gamma: Fraction = 1.0
    """Discount of later rewards, per token."""
    lam: Fraction = 0.95
    """Weight of longer returns in the generalised advantage estimate."""
    kl: Kl = Kl()
    """The price of leaving the reference model."""
    advantage: Literal["gae", "rloo", "grpo", "reinforce++"] = "gae"
    """How advantages are estimated: with a critic (gae), from the other answers to a prompt, or from the batch."""
    missing_eos_score: float = -1.0
    """Score of an answer that was cut off before it ended."""
    score_clip: Positive = 5.0
    """Largest normalised score, in either direction."""
    iterations: Count | None = None
    """Stop after this many rounds of sampling and training."""
    whiten: bool = True
    """Bring advantages of `gae` to mean 0 and standard deviation 1 over the batch; `reinforce++` always does."""
