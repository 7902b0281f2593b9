"""What each stage's charts show, in which order, and what healthy looks like."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """The chart of one metric, and of its held-out twin `eval/NAME`."""

    metric: str
    title: str
    healthy: str
    unit: str = ""


_SETTLES = "Settles down. Spikes that keep coming back mean that the learning rate is too high."
_UPDATES = (
    Panel("grad_norm", "Gradient norm", _SETTLES),
    Panel("grad_norm/policy", "Gradient norm of the policy", _SETTLES),
    Panel("grad_norm/critic", "Gradient norm of the critic", _SETTLES),
    Panel("tokens", "Tokens read in a step", "Steady: steps of equal work."),
    Panel("lr", "Learning rate", "Rises during the warm-up, then follows optim.schedule."),
)
_SFT = (
    Panel(
        "loss",
        "Loss",
        "Falls fast, then slowly, and the held-out loss falls with it. Held-out rising is learning by heart.",
        "nats per token",
    ),
)
_RM = (
    Panel("loss", "Loss", "Starts near 0.69, where nothing is known, and falls.", "nats per pair"),
    Panel(
        "accuracy",
        "Accuracy",
        "Rises above 0.5, chance, to what the voters agree on: 0.65 to 0.8 for people. Held-out stays close.",
        "share of pairs",
    ),
    Panel(
        "margin", "Score margin", "Grows slowly. A margin in the tens is overconfidence.", "chosen - rejected"
    ),
    Panel(
        "calibration_error",
        "Calibration error",
        "Low, under 0.1: when the model is 80 % sure, it is right 80 % of the time.",
    ),
)
_DPO = (
    Panel("loss", "Loss", "Falls from where it starts (0.69 for sigmoid); held-out falls with it."),
    Panel(
        "margin",
        "Implicit reward margin",
        "Rises steadily and flattens. Held-out far below training is overfitting.",
        "beta x nats",
    ),
    Panel(
        "accuracy",
        "Accuracy",
        "Rises from 0.5 towards the share of votes that can be predicted; 1.0 in training means too many epochs.",
        "share of pairs",
    ),
    Panel(
        "chosen_logratio",
        "Chosen answers against the reference",
        "Stays near 0 or above. Falling by tens of nats means that both answers become unlikely.",
        "nats",
    ),
    Panel(
        "chosen_nll",
        "Loss of chosen answers",
        "Stays flat or falls; rising fast is unlearning.",
        "nats per token",
    ),
)
_PPO = (
    Panel(
        "reward",
        "Reward",
        "Rises, steeply at first, and flattens. The held-out reward follows.",
        "mean score",
    ),
    Panel(
        "kl",
        "KL from the reference",
        "Rises slowly and levels off at a few nats, tens at most. Growth without an end is a policy running away.",
        "nats per answer",
    ),
    Panel(
        "length",
        "Answer length",
        "Stays in the range people would write. Growing together with the reward is a warning.",
        "tokens",
    ),
    Panel(
        "length_correlation",
        "Reward and length",
        "Anywhere from -0.5 to 0.5. Near 1, longer answers are what the reward pays for.",
        "correlation in a batch",
    ),
    Panel(
        "entropy",
        "Entropy",
        "Falls gently and stays above zero. A sudden fall means that every answer becomes the same.",
        "nats per token",
    ),
    Panel("eos_rate", "Answers that end", "Stays near 1.", "share"),
    Panel(
        "clip_fraction",
        "Clipped ratios",
        "Between 0 and 0.2. More: the updates are too large.",
        "share of tokens",
    ),
    Panel(
        "explained_variance",
        "Explained variance",
        "Rises above 0 within a few iterations; 0.3 to 0.9 is a critic that helps.",
    ),
    Panel("step_kl", "KL of one update", "Small, under about 0.05, and steady.", "nats per token"),
    Panel("kl_coef", "KL coefficient", "Constant, unless ppo.kl.target is set: then it settles."),
    Panel("policy_loss", "Policy loss", "Near 0. Its size says little; jumps are a warning."),
    Panel("loss", "Loss", "Near 0: the policy loss and ppo.value_coef times the value loss."),
    Panel("value_loss", "Value loss", "Falls, then stays in a band."),
    Panel("value_clip_fraction", "Clipped values", "Low once the critic has settled.", "share of tokens"),
)
PANELS: dict[str, tuple[Panel, ...]] = {
    "sft": _SFT + _UPDATES,
    "train-rm": _RM + _UPDATES,
    "dpo": _DPO + _UPDATES,
    "ppo": _PPO + _UPDATES,
}

HISTOGRAM = Panel(
    "histogram",
    "Score histogram",
    "Two hills, chosen to the right of rejected, that overlap where votes are uncertain.",
    "share of answers",
)
MARGINS = Panel(
    "margins",
    "Margin histogram",
    "One hill with most of its mass right of 0. Long tails are a few pairs that dominate.",
    "share of pairs",
)
CALIBRATION = Panel(
    "calibration",
    "Calibration",
    "On the diagonal. Below it the model is surer than it is right.",
    "share named right",
)
FRONTIER = Panel(
    "frontier",
    "Reward against KL",
    "Up and to the left is better: much reward for few nats. Going right without going up buys nothing.",
    "mean score",
)


def panels_of(stage: str, names: list[str]) -> list[Panel]:
    """Return the panels of a stage, then one for each other metric of `names` (without `eval/`)."""
    known = PANELS.get(stage, ())
    others = [
        name for name in names if name not in {panel.metric for panel in known} | {"epoch", "iteration"}
    ]
    parts = [
        Panel(name, f"Reward part: {name[6:]}", "Rises if it is wanted.")
        for name in others
        if name.startswith("score/")
    ]
    rest = [Panel(name, name, "") for name in others if not name.startswith("score/")]
    return [*known, *parts, *rest]
