"""The scripted engine keeps the engine's contract."""

import pytest

from rlhf_cli.rollout.engine import Completion, Engine, Sampling, ScriptedEngine

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=8, stop_ids=(1,))
SHORT = Completion((5, 1), (-0.5, -0.25), finished=True)
LONG = Completion((5, 6, 7), (-1.0, -1.0, -1.0), finished=False)


def test_the_seed_alone_picks_the_completion():
    engine: Engine = ScriptedEngine([SHORT, LONG])
    assert engine.generate([[2], [3], [4]], SAMPLING, [4, 7, 2]) == [SHORT, LONG, SHORT]
    assert engine.generate([[3]], SAMPLING, [7]) == [LONG]


def test_requests_are_kept_in_order():
    engine = ScriptedEngine([SHORT])
    engine.generate([[2, 3]], SAMPLING, [0])
    engine.generate([[4], [2]], SAMPLING, [0, 1])
    assert engine.requests == [(2, 3), (4,), (2,)]


def test_every_prompt_needs_a_seed():
    with pytest.raises(ValueError, match="shorter"):
        ScriptedEngine([SHORT]).generate([[2], [3]], SAMPLING, [0])
