"""Rows of a Hugging Face data set; the only place where the `datasets` library is used."""

from collections.abc import Iterable, Iterator

from rlhf_cli.data.tables import RawRow
from rlhf_cli.errors import DataError, MissingInputError, UnavailableError


def open_hub(
    name: str, *, split: str, subset: str | None, revision: str | None
) -> tuple[str, Iterator[RawRow]]:
    """Download one split, or take it from the cache, and give its name and rows.

    `subset` is a configuration of the data set, or else a folder in it. Raises MissingInputError where there is
    no such data set, UnavailableError where the Hub does not answer, DataError for a wrong split or subset.
    """
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    try:
        rows = _load(name, split, subset, revision)
    except DatasetNotFoundError as error:
        fix = "Correct the path, or run `hf auth login` if the data set is gated."
        raise MissingInputError(f"no file, directory or data set {name}", where=name, fix=fix) from error
    except (ValueError, FileNotFoundError, DatasetsError) as error:
        fix = "Check split, subset and revision of the source."
        raise DataError(f"cannot load the data set: {error}", where=name, fix=fix) from error
    except OSError as error:  # the Hub's and the network's errors all are one
        message = f"no file or directory {name}, and the Hugging Face Hub does not answer: {error}"
        fix = "Correct the path, or try again when the network is back."
        raise UnavailableError(message, where=name, fix=fix) from error
    label = f"{name}[{split}]"
    return label, (RawRow(f"{label}#{i}", dict(row)) for i, row in enumerate(rows, 1))


def _load(name: str, split: str, subset: str | None, revision: str | None) -> Iterable[dict[str, object]]:
    from datasets.load import load_dataset

    try:
        rows: Iterable[dict[str, object]] = load_dataset(name, subset, split=split, revision=revision)
    except ValueError:
        if subset is None:
            raise
        rows = load_dataset(name, data_dir=subset, split=split, revision=revision)
    return rows
