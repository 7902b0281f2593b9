"""The data set that `rlhf data` is asked about: a path, or the data section of a stage's YAML file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlhf_cli.config.guess import guess_stage
from rlhf_cli.config.load import load_config
from rlhf_cli.config.sections import Data, Model, SftLoss, Source
from rlhf_cli.data.files import Reading
from rlhf_cli.data.readers import read_comparisons, read_demonstrations, read_prompts
from rlhf_cli.data.split import split_by_prompt
from rlhf_cli.errors import DataError
from rlhf_cli.records import Comparison, Demonstration, Prompt

if TYPE_CHECKING:
    from rlhf_cli.data.encode import Encoder
    from rlhf_cli.models.load import Vocabulary

Kind = Literal["comparisons", "demonstrations", "prompts"]
Record = Comparison | Demonstration | Prompt

# In the order they are tried: pairs can be read as demonstrations and prompts too, never the other way round.
_READERS: Mapping[Kind, Callable[..., Reading[Record]]] = {
    "comparisons": read_comparisons,
    "demonstrations": read_demonstrations,
    "prompts": read_prompts,
}
_KIND_OF_STAGE: Mapping[str, Kind] = {
    "sft": "demonstrations", "train-rm": "comparisons", "dpo": "comparisons", "ppo": "prompts", "collect": "prompts",
}  # fmt: skip
_ROWS_TO_TELL = 50


@dataclass(frozen=True)
class Request:
    """What is asked about: rows as a section of a configuration, the model whose tokenizer counts, the loss."""

    data: Data
    kind: Kind | None = None
    model: Model | None = None
    loss_on: str = "completion"
    room_for_answer: int = 0
    seed: int = 0


@dataclass(frozen=True)
class DataSet:
    """Rows as read, in training and evaluation; what was read of each."""

    request: Request
    kind: Kind
    train: list[Record]
    eval: list[Record]
    train_reading: Reading[Record]
    eval_reading: Reading[Record] | None


def request_from_config(path: Path) -> Request:
    """Ask about the data that the configuration of a stage names, as the stage would read it."""
    stage = guess_stage(path)
    config = load_config(stage, path).config
    if stage == "collect":
        data = Data(train=config.prompts, template=config.template, on_bad_row=config.on_bad_row)
        first = config.candidates[0]
        return Request(data, "prompts", Model(path=first.path, revision=first.revision), seed=config.seed)
    loss_on = config.loss.on if stage == "sft" else SftLoss().on
    room = config.rollout.max_new_tokens if stage == "ppo" else 0
    return Request(config.data, _KIND_OF_STAGE[stage], config.model, loss_on, room, config.seed)


def open_data_set(request: Request) -> DataSet:
    """Read the rows. Raises DataError and MissingInputError as the stages do."""
    data = request.data
    kind = request.kind or kind_of(data.train)
    reading = _READERS[kind](list(data.train), on_bad_row=data.on_bad_row, seed=request.seed)
    if data.eval is not None:
        held_out = _READERS[kind](list(data.eval), on_bad_row=data.on_bad_row, seed=request.seed)
        return DataSet(request, kind, reading.records, held_out.records, reading, held_out)
    train, evaluation = split_by_prompt(reading.records, data.eval_fraction, request.seed)
    return DataSet(request, kind, train, evaluation, reading, None)


def kind_of(sources: Sequence[Source]) -> Kind:
    """Tell what kind of records rows hold, by the first format they fit."""
    first = sources[0].model_copy(update={"limit": min(sources[0].limit or _ROWS_TO_TELL, _ROWS_TO_TELL)})
    failure: DataError | None = None
    for kind, read in _READERS.items():
        try:
            read([first], on_bad_row="skip")
        except DataError as error:
            # The reader of demonstrations knows the most formats, so its words say the most.
            failure = error if failure is None or kind == "demonstrations" else failure
        else:
            return kind
    assert failure is not None
    raise failure


def vocabulary_for(data_set: DataSet) -> "Vocabulary":
    """Load the tokenizer of the model, or train the one its from_scratch section asks for."""
    from rlhf_cli.data.prepare import texts_of
    from rlhf_cli.models.load import load_vocabulary, make_vocabulary

    model = data_set.request.model
    assert model is not None
    if model.from_scratch is None:
        return load_vocabulary(model)
    return make_vocabulary(
        model.from_scratch, texts_of([it for it in data_set.train if isinstance(it, Demonstration)])
    )


def encoder_for(data_set: DataSet, vocabulary: "Vocabulary") -> "Encoder":
    """Make the encoder the stage would use."""
    from rlhf_cli.data.prepare import make_encoder_of

    make = make_encoder_of(
        data_set.request.data, vocabulary.tokenizer, vocabulary.stop_ids, vocabulary.max_positions
    )
    return make()
