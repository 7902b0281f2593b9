"""Files for the tests of the readers, and what comes out of them."""

import json
from pathlib import Path

import pytest

from rlhf_cli.data.files import open_tables
from rlhf_cli.data.tables import RawRow
from rlhf_cli.errors import DataError, MissingInputError, RlhfError

ROW = {"prompt": "q", "completion": "naïve 🦊"}
LINE = json.dumps(ROW, ensure_ascii=False).encode()
OTHER = b'{"prompt": "p", "completion": "c"}'


def rows_of(path: Path, content: bytes) -> list[RawRow]:
    path.write_bytes(content)
    return [row for table in open_tables(str(path)) for row in table.rows]


def error_of(path: Path, content: bytes) -> RlhfError:
    with pytest.raises((DataError, MissingInputError)) as caught:
        rows_of(path, content)
    return caught.value


def write_parquet(path: Path, rows: list[dict[str, object]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
