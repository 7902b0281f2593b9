"""What every configuration section is made of: a closed, frozen, strict model, bounded numbers, named refusals."""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Smoothing = Annotated[float, Field(ge=0, lt=0.5)]
Name = Annotated[str, Field(min_length=1)]
FunctionName = Annotated[str, Field(pattern=r"^.+:[A-Za-z_][A-Za-z0-9_]*$")]


class Section(BaseModel):
    """A map of the YAML file: unknown keys are refused, values are neither converted nor changed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Refusal(NamedTuple):
    """One broken rule: the key it is shown at (relative to the validating section), what is wrong, what to do."""

    key: str
    message: str
    help: str


def refuse(refusals: Sequence[Refusal]) -> None:
    """Raise all broken rules of one section at once; do nothing when there are none."""
    if refusals:
        text = "; ".join(f"{refusal.key}: {refusal.message}" for refusal in refusals)
        raise PydanticCustomError("refused", "{text}", {"text": text, "refusals": tuple(refusals)})
