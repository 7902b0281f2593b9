"""The processes of a run: which one this is, and what they tell each other."""

from pathlib import Path

import pytest
from launch import run_program

from rlhf_cli.errors import DataError, UnavailableError
from rlhf_cli.run.ranks import Place, Ranks, find_place, first_host, join


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, Place()),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Place(3, 4, 1)),
        ({"WORLD_SIZE": "1"}, Place()),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}, Place(5, 8, 1)),
        # The script of a job with eight tasks, which runs once.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}, Place()),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, Place()),
        # torchrun inside of a step of one task for each machine
        (
            {
                "RANK": "2",
                "WORLD_SIZE": "16",
                "LOCAL_RANK": "2",
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_PROCID": "0",
            },
            Place(2, 16, 2),
        ),
    ],
)
def test_the_launcher_says_which_process_this_is(environment: dict[str, str], place: Place):
    assert find_place(environment) == place


@pytest.mark.parametrize(
    ("hosts", "host"),
    [
        ("node7", "node7"),
        ("a,b", "a"),
        ("gpu[003-005,9]", "gpu003"),
        ("gpu[12]", "gpu12"),
        ("r1-n[01,04].cluster,x", "r1-n01.cluster"),
    ],
)
def test_the_first_host_of_a_list(hosts: str, host: str):
    assert first_host(hosts) == host


def test_no_host_is_an_error():
    with pytest.raises(UnavailableError, match="no host"):
        first_host("")


def test_alone_everything_is_the_plain_thing():
    ranks = join(environment={})
    assert (ranks.leads, ranks.size) == (True, 1)
    assert ranks.deal("abc") == [("a", True), ("b", True), ("c", True)]
    assert ranks.gather({"a": 1}) == [{"a": 1}]
    assert ranks.lead(lambda: 7) == 7
    with pytest.raises(DataError):
        ranks.agree(DataError("broken"))
    with ranks.leader_first():
        assert not ranks.any(False, False)


def test_whoever_runs_out_of_parts_goes_through_one_that_does_not_count():
    shares = [Ranks(Place(index, 3)).deal([0, 1, 2, 3]) for index in range(3)]
    assert shares == [[(0, True), (3, True)], [(1, True), (0, False)], [(2, True), (0, False)]]


def test_two_processes_tell_each_other(tmp_path: Path):
    run_program(Path(__file__).parent / "ranks_program.py", tmp_path, 2)
