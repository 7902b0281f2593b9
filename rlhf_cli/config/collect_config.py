"""The configuration of `rlhf collect`, and what its kinds can and cannot be told."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rlhf_cli.config.base import Count, Name, Refusal, Section, Seed, refuse
from rlhf_cli.config.collect_sections import RewardLabeler
from rlhf_cli.config.sections import (
    Candidate,
    Constitution,
    Export,
    Generation,
    Labeler,
    Overlap,
    Source,
    TerminalLabeler,
)


class CollectConfig(Section):
    """`rlhf collect`: have answers compared, written by people, or criticised and revised."""

    run_dir: Name
    """Directory that holds everything this run writes."""
    seed: Seed = 0
    """Decides every random choice."""
    kind: Literal["preferences", "demonstrations", "constitution"] = "preferences"
    """Comparisons of two answers, answers that people write, or answers revised under principles."""
    prompts: list[Source] = Field(min_length=1)
    """Where the prompts come from."""
    candidates: list[Candidate] = Field(default=[], max_length=2)
    """The models that answer. To compare, a single one answers twice; for demonstrations, one may give drafts."""
    labeler: Labeler = TerminalLabeler(kind="terminal")
    """Who judges, or writes."""
    constitution: Constitution | None = None
    """Who criticises and revises, and by which principles; for `kind: constitution`."""
    overlap: Overlap = Overlap()
    """How many people judge the same pair."""
    generation: Generation = Generation()
    """How answers are sampled."""
    limit: Count | None = None
    """Stop after this many prompts."""
    max_prompt_length: Count = 1024
    """Longest prompt, in tokens of the candidates; longer ones are left out and counted."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """Whether prompts go through the chat template; `auto` does so for conversations."""
    on_bad_row: Literal["error", "skip"] = "error"
    """Whether a row that cannot be read stops the run or is counted and left out."""
    export: Export = Export()
    """What the training rows are made of."""
    round: Count | None = None
    """Round of an iterated training, for the record: it is written into every row."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(_kind_refusals(self))
        if self.overlap.fraction and self.labeler.kind not in ("terminal", "web"):
            message = f"no people judge with labeler.kind {self.labeler.kind}, which would agree with itself"
            refuse([Refusal("overlap.fraction", message, "remove it")])
        return self


# Keys that not every kind of collection has a use for.
_KINDS_OF_KEYS = {
    "labeler": ("preferences", "demonstrations"),
    "overlap": ("preferences",),
    "export": ("preferences",),
    "constitution": ("constitution",),
}


def _kind_refusals(config: CollectConfig) -> list[Refusal]:
    """Refuse what another kind of collection is told, and candidates that cannot give what this kind needs."""
    refusals = []
    for key, kinds in _KINDS_OF_KEYS.items():
        if config.kind not in kinds and dict(config)[key] != CollectConfig.model_fields[key].default:
            message = f"has no effect with kind: {config.kind}"
            refusals.append(Refusal(key, message, f"remove it, or set `kind: {kinds[0]}`"))
    if config.kind == "demonstrations":
        return refusals + _demonstration_refusals(config)
    if not config.candidates:
        message = f"required with kind: {config.kind}"
        return [*refusals, Refusal("candidates", message, "name a model that answers the prompts")]
    if config.kind == "constitution":
        return refusals + _constitution_refusals(config)
    if isinstance(config.labeler, RewardLabeler):
        return refusals + _ranking_refusals(config.candidates, config.labeler)
    return refusals + _pair_refusals(config.candidates)


def _demonstration_refusals(config: CollectConfig) -> list[Refusal]:
    refusals = []
    if config.labeler.kind not in ("terminal", "web"):
        message = f"{config.labeler.kind} cannot write answers"
        refusals.append(Refusal("labeler.kind", message, "set it to terminal or web"))
    if len(config.candidates) > 1:
        message = "one model gives drafts, and this is a second one"
        refusals.append(Refusal("candidates.1", message, "remove it"))
    return refusals


def _constitution_refusals(config: CollectConfig) -> list[Refusal]:
    refusals = []
    if config.constitution is None:
        message = "required with kind: constitution"
        refusals.append(Refusal("constitution", message, "say at least which `chat` model criticises"))
    if len(config.candidates) > 1:
        message = "one model gives the first answers, and this is a second one"
        refusals.append(Refusal("candidates.1", message, "remove it"))
    return refusals


def _pair_refusals(candidates: list[Candidate]) -> list[Refusal]:
    if any(c.temperature > 0 or c != candidates[0] for c in candidates):
        return []
    message = "candidates.0 and candidates.1 would give the same answers: same model, temperature 0"
    if len(candidates) == 1:
        message = "a single entry in candidates answers twice, and at temperature 0 both answers are the same"
    return [Refusal("candidates.0.temperature", message, "use a temperature above 0")]


def _ranking_refusals(candidates: list[Candidate], labeler: RewardLabeler) -> list[Refusal]:
    refusals = []
    if len(candidates) * labeler.samples < 2:
        message = "one answer to each prompt leaves nothing to compare"
        refusals.append(Refusal("labeler.samples", message, "use at least 2"))
    for index, candidate in enumerate(candidates):
        if candidate.temperature == 0 and labeler.samples > 1:
            message = f"at temperature 0 the {labeler.samples} answers of labeler.samples are all the same"
            refusals.append(Refusal(f"candidates.{index}.temperature", message, "use a temperature above 0"))
    return refusals
