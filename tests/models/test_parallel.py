"""Models on several processes: that their weights are in parts, and learn what whole ones learn."""

from pathlib import Path

import pytest
from launch import run_program
from tiny import Tiny

from rlhf_cli.config.sections import Distributed
from rlhf_cli.errors import ConfigError
from rlhf_cli.models.load import load_policy_for_sampling
from rlhf_cli.models.parallel import is_shared_out, share_out
from rlhf_cli.run.ranks import Place, Ranks


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_hold_half_of_a_model_each_and_learn_what_one_learns(size: int, tiny: Tiny, tmp_path: Path):
    run_program(Path(__file__).parent / "parallel_program.py", tmp_path, size, tiny.model)


@pytest.mark.parametrize(("size", "strategy"), [(1, "fsdp"), (2, "ddp"), (2, "auto")])
def test_nothing_is_wrapped_alone_or_where_every_process_holds_everything(
    size: int, strategy: str, tiny: Tiny
):
    loaded = load_policy_for_sampling(tiny.model)
    share_out([(loaded, loaded.model)], Distributed(strategy=strategy), Ranks(Place(0, size)))
    assert not is_shared_out(loaded.model)


def test_groups_must_divide_the_processes(tiny: Tiny):
    loaded = load_policy_for_sampling(tiny.model)
    settings = Distributed(strategy="fsdp", shard_size=3)
    with pytest.raises(ConfigError, match="4 processes cannot form groups of 3"):
        share_out([(loaded, loaded.model)], settings, Ranks(Place(0, 4)))
