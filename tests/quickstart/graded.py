"""Answers and figures made by hand."""

from rlhf_cli.quickstart.figures import Answer, Figures, Results

PARTS = {"fact": 0.5, "courtesy": 0.4, "concise": 1.0, "form": 0.9}


def answer(gold: float, *, text: str = "Our Juno eats clover.", finished: bool = True, reward: float = 0.0,
           log_ratio: float | None = None, fact: float = 1.0) -> Answer:  # fmt: skip
    return Answer(text, finished, gold, {"fact": fact, "form": 1.0}, reward, log_ratio)


def answers(*golds: float) -> list[Answer]:
    return [answer(gold) for gold in golds]


def row(gold: float, *, kl: float | None = None, eos_rate: float = 1.0, **parts: float) -> Figures:
    return Figures(gold, PARTS | parts, 0.5, kl, 8.0, eos_rate, 0.75, (0.69, 0.801))


def results(
    *, seed: int = 0, gain: float = 0.2, kl: float | None = 4.0, rm_accuracy: float | None = 0.8
) -> Results:
    sampled = {"sft": row(0.6, kl=0.0), "dpo": row(0.6 + gain, kl=2.0), "ppo": row(0.9, kl=kl)}
    greedy = {"sft": row(0.8), "dpo": row(0.85), "ppo": row(0.8)}
    return Results(seed, 512, rm_accuracy, sampled, greedy)
