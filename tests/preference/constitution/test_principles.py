"""Principles and ways of asking as files, and which principle comes when."""

from collections import Counter
from pathlib import Path

import pytest

from rlhf_cli.errors import ConfigError, MissingInputError
from rlhf_cli.preference.constitution.principles import (
    Principle,
    draw_principle,
    load_asking,
    load_principles,
)


def principles(*weights: float) -> list[Principle]:
    return [
        Principle(id=f"p{i}", critique="wrong?", revision="mend", weight=weight)
        for i, weight in enumerate(weights)
    ]


def test_the_shipped_files_can_be_used():
    shipped = load_principles("starter")
    assert len(shipped) == len({it.id for it in shipped}) >= 8
    assert all(it.compare for it in shipped)
    asking = load_asking("standard")
    assert all(slot in asking.critique for slot in ("{conversation}", "{answer}", "{principle}", "{tag}"))
    assert "{critique}" in asking.revision


def test_every_principle_has_its_turn_before_one_comes_again():
    some = principles(1, 1, 1)
    for prompt_id in range(20):
        first_three = {draw_principle(some, 0, prompt_id, number).id for number in (1, 2, 3)}
        assert first_three == {"p0", "p1", "p2"}


def test_weights_say_how_often_a_principle_is_drawn_first():
    drawn = Counter(draw_principle(principles(3, 1), 0, prompt_id, 1).id for prompt_id in range(2000))
    assert 0.72 < drawn["p0"] / 2000 < 0.78


def test_the_draw_depends_on_seed_and_prompt_alone():
    some = principles(1, 1, 1, 1)
    drawn = {(seed, i): draw_principle(some, seed, i, 1).id for seed in (0, 1) for i in range(50)}
    assert drawn == {key: draw_principle(some, *key, 1).id for key in drawn}
    assert [drawn[0, i] for i in range(50)] != [drawn[1, i] for i in range(50)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no principles"),
        ("- {id: a, critique: c, revision: r}\n- {id: a, critique: d, revision: s}", "the same id"),
        ("- {id: a, critique: c}", "0.revision: Field required"),
        ("- {id: a b, critique: c, revision: r}", "0.id"),
        ("- {id: a, critique: c, revision: r, weight: 0}", "0.weight"),
        ("- [", "expected"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, text: str, message: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_principles(str(path))
    assert caught.value.where == str(path)


def test_a_missing_file_is_named_with_what_there_is():
    with pytest.raises(MissingInputError, match="no file nowhere") as caught:
        load_principles("nowhere.yaml")
    assert "starter" in str(caught.value.fix)
