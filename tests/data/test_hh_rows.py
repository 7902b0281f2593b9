"""The harmless test split of HH-RLHF, which lies beside some checkouts: what is read of it, and what is set aside."""

from pathlib import Path

import pytest

from rlhf_cli.config.sections import Source
from rlhf_cli.data.readers import read_comparisons

ROWS = Path(__file__).parents[2].parent / "shared" / "data" / "hh-rlhf-harmless-test" / "test.jsonl"


@pytest.mark.skipif(not ROWS.exists(), reason="the test split of HH-RLHF does not lie beside this checkout")
def test_the_known_bad_rows_of_hh_are_set_aside_and_no_others():
    reading = read_comparisons([Source(path=str(ROWS))])
    assert (reading.num_rows, len(reading.records), len(reading.rejected)) == (2312, 2299, 13)
    assert reading.counts == {
        "hh: different numbers of turns": 5,
        "hh: speakers do not alternate": 4,
        "empty answer": 4,
    }
