"""The rules of the doctor. Every threshold is one a healthy run stays well away from."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import StatisticsError, correlation

from rlhf_cli.run.doctor.history import History

MANY_NATS_PER_TOKEN = 0.7
MANY_NATS = 60.0


@dataclass(frozen=True)
class Rule:
    """A fault of one stage. `judge` returns a sentence where it sees the fault, else None."""

    name: str
    stage: str
    metric: str
    keys: str
    judge: Callable[[History], str | None]


def kl_runs_away(run: History) -> str | None:
    """See a policy that has left its reference: by the answer, or by the token."""
    kl, length = run.newest("kl"), run.newest("length")
    if kl > MANY_NATS or kl > MANY_NATS_PER_TOKEN * length:
        return f"KL runs away: {kl:.1f} nats per answer of {length:.0f} tokens; this is no longer the model it was."
    return None


def kl_is_negative(run: History) -> str | None:
    """See answers that the policy did not sample itself: over its own, this mean cannot be negative for long."""
    kl = run.newest("kl")
    if kl < -1.0:
        return (
            f"KL is {kl:.1f} nats: answers are likelier under the reference, so another policy sampled them."
        )
    return None


def reward_hacks_length(run: History) -> str | None:
    """See answers at least half as long again, whose reward moves with their length."""
    if run.values("score/length"):
        return None  # length is what was asked for
    before, now = run.first("length"), run.newest("length")
    rose = run.newest("reward") > run.first("reward")
    if now > 1.5 * before and rose and _correlation(run, "length", "reward") > 0.8:
        return (
            f"The reward is bought with length: answers grew from {before:.0f} to {now:.0f} tokens with it."
        )
    return None


def entropy_collapses(run: History) -> str | None:
    before, now = run.first("entropy"), run.newest("entropy")
    if now < 0.1 * before:
        return f"Entropy collapsed from {before:.2f} to {now:.3f} nats per token: the policy says one thing only."
    return None


def critic_explains_nothing(run: History) -> str | None:
    """See a critic that after five iterations is no better than a constant."""
    explained = run.newest("explained_variance", at_least=5)
    if explained < 0.05 and run.values("value_loss"):
        return f"The critic explains {max(explained, 0):.0%} of the returns' variance: advantages are mostly noise."
    return None


def eos_disappears(run: History) -> str | None:
    """See answers that do not end: most of them, or far more than at first."""
    before, now = run.first("eos_rate"), run.newest("eos_rate")
    if now < 0.5:
        return f"EOS is missing: only {now:.0%} of the answers end by themselves."
    if now < before - 0.3:
        return f"EOS disappears: {before:.0%} of the answers ended by themselves at first, {now:.0%} do now."
    return None


def clips_too_often(run: History) -> str | None:
    clipped = run.newest("clip_fraction")
    if clipped > 0.3:
        return (
            f"The ratio clips on {clipped:.0%} of the tokens: each update goes further than its data allow."
        )
    return None


def reward_does_not_rise(run: History) -> str | None:
    """See ten iterations without gain."""
    rewards = run.values("reward")
    before, now = run.first("reward"), run.newest("reward", at_least=10)
    if now <= before:
        return f"The reward has not risen in {len(rewards)} iterations: {before:.3g} at first, {now:.3g} now."
    return None


def held_out_loss_rises(run: History) -> str | None:
    losses = run.values("eval/loss")
    if len(losses) >= 3 and min(losses[-2:]) > 1.05 * min(losses):
        return (
            f"Held-out loss rose from {min(losses):.3g} to {losses[-1]:.3g}: the model learns rows by heart."
        )
    return None


def reward_model_is_guessing(run: History) -> str | None:
    """See a model that after training for a while ranks no better than chance, which is 0.5."""
    accuracies = run.values("eval/accuracy")
    if len(accuracies) >= 3 and max(accuracies[-2:]) < 0.55:
        return f"The reward model guesses: it ranks {accuracies[-1]:.0%} of the held-out pairs as people did."
    return None


def reward_model_overfits(run: History) -> str | None:
    train, held_out = run.newest("accuracy"), run.newest("eval/accuracy")
    if train > held_out + 0.25:
        return f"The reward model is right on {train:.0%} of its own pairs, but on {held_out:.0%} of held-out ones."
    return None


def badly_calibrated(run: History) -> str | None:
    """See confidence that is off by a seventh on average."""
    errors = run.values("eval/calibration_error")
    if len(errors) >= 2 and min(errors[-2:]) > 0.15:
        return f"The reward model's confidence is off by {errors[-1]:.0%} on average: it is surer than it is right."
    return None


def both_answers_fall(run: History) -> str | None:
    """See DPO make the chosen answers far less likely than they were: at e^-20 they are as good as unlearnt."""
    change = run.newest("chosen_logratio")
    if change < -20.0:
        return f"Chosen answers lost {-change:.0f} nats: the margin grows while both answers become unlikely."
    return None


def _correlation(run: History, one: str, other: str) -> float:
    try:
        return correlation(run.values(one), run.values(other))
    except StatisticsError:  # a constant series, or too short
        return 0.0


_LESS_FITTING = "train.epochs or optim.lr (lower), or add data"
RULES = (
    Rule("kl_runs_away", "ppo", "kl", "ppo.kl.coef (higher), or set ppo.kl.target", kl_runs_away),
    Rule(
        "kl_is_negative", "ppo", "kl", "rollout.tolerance (lower), or start the server anew", kl_is_negative
    ),
    Rule(
        "reward_hacks_length",
        "ppo",
        "length",
        "reward (add kind: length with a small weight), or train-rm's data",
        reward_hacks_length,
    ),
    Rule(
        "entropy_collapses", "ppo", "entropy", "ppo.kl.coef (higher) or optim.lr (lower)", entropy_collapses
    ),
    Rule(
        "critic_explains_nothing",
        "ppo",
        "explained_variance",
        "critic.lr (higher) or critic.init (reward)",
        critic_explains_nothing,
    ),
    Rule(
        "eos_disappears",
        "ppo",
        "eos_rate",
        "ppo.missing_eos_score (lower) or rollout.max_new_tokens (higher)",
        eos_disappears,
    ),
    Rule("clips_too_often", "ppo", "clip_fraction", "optim.lr or ppo.epochs (lower)", clips_too_often),
    Rule(
        "reward_does_not_rise",
        "ppo",
        "reward",
        "optim.lr (higher), ppo.kl.coef (lower) or rollout.batch_size (higher)",
        reward_does_not_rise,
    ),
    Rule("held_out_loss_rises", "sft", "loss", _LESS_FITTING, held_out_loss_rises),
    Rule(
        "reward_model_is_guessing",
        "train-rm",
        "accuracy",
        "optim.lr, or look at the comparisons",
        reward_model_is_guessing,
    ),
    Rule("reward_model_overfits", "train-rm", "accuracy", _LESS_FITTING, reward_model_overfits),
    Rule(
        "badly_calibrated",
        "train-rm",
        "calibration_error",
        "loss.label_smoothing (higher) or train.epochs (lower)",
        badly_calibrated,
    ),
    Rule(
        "both_answers_fall",
        "dpo",
        "chosen_logratio",
        "loss.sft_weight or loss.beta (higher)",
        both_answers_fall,
    ),
)
