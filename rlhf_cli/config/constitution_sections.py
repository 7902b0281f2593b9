"""The section of `kind: constitution`: who criticises and revises, by which principles, how often."""

from rlhf_cli.config.base import Count, Name, NonNegative, Section
from rlhf_cli.config.judge_sections import Chat


class Constitution(Section):
    """Answers that are criticised under principles and revised (Bai et al. 2022)."""

    chat: Chat
    """The model that criticises and revises."""
    principles: Name = "starter"
    """The principles: `starter`, or a YAML file of your own."""
    rounds: Count = 2
    """Times each answer is criticised and revised, each time under another principle drawn at random."""
    template: Name = "standard"
    """How the model is asked: `standard`, or a YAML file of your own."""
    temperature: NonNegative = 0.0
    """Sampling temperature of critiques and revisions."""
    max_new_tokens: Count = 512
    """Longest critique, and longest revision, in tokens."""
