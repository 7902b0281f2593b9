"""The processes of one run. Rank 0 leads: it alone owns the run directory, and speaks.

`torchrun` and `srun` start one process per device. All of them walk through the same stage with the same
configuration and the same rows; what they share out are micro-batches and prompts. Every method here with "together"
in its description must be called by all processes in the same order, and returns the same everywhere.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from rlhf_cli import errors
from rlhf_cli.errors import RlhfError, UnavailableError
from rlhf_cli.run.failures import known_failure
from rlhf_cli.run.signals import StopFlag, Stopped

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


# For rank 0, which prepares data, asks servers and writes to disk while the others wait. Over gloo a process that dies
# is noticed at once, whatever this is.
_LONGEST_WAIT = timedelta(hours=4)


@dataclass(frozen=True, slots=True)
class Place:
    """Which of `size` processes this one is, and which of those on its machine."""

    index: int = 0
    size: int = 1
    local_index: int = 0


def find_place(environment: Mapping[str, str] = os.environ) -> Place:
    """Read what the launcher says: torchrun's RANK, else srun's; a process that was started alone is rank 0 of 1.

    The script of a Slurm job has SLURM_PROCID too; only a step that srun started has SLURM_STEP_NUM_TASKS.
    """
    if "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return Place()
    index, size, local_index = (int(environment.get(name, "0")) for name in names)
    return Place(index, size, local_index)


class Ranks:
    """This process among the processes of the run; alone, every method is the plain thing it would be."""

    def __init__(self, place: Place | None = None, stop: StopFlag | None = None) -> None:
        self.place = place or Place()
        self.index, self.size = self.place.index, self.place.size
        self._stop = stop

    @property
    def leads(self) -> bool:
        """Say whether this process owns the run directory."""
        return self.index == 0

    @property
    def stop_requested(self) -> bool:
        """Say, together, whether any process was asked to stop."""
        return self.any(self._stop is not None and self._stop.requested)

    def deal(self, parts: Sequence[T]) -> list[tuple[T, bool]]:
        """Give this process its share of `parts`, as many as every other gets; False marks one that does not count.

        Models whose weights are shared out compute only where all processes do, so whoever has nothing left goes
        through a part that another one counts. Seven parts on two processes:
        [0, 2, 4, 6] and [1, 3, 5, (0, False)].
        """
        shares = [(part, True) for part in parts[self.index :: self.size]]
        if parts and len(shares) < -(-len(parts) // self.size):
            shares.append((parts[0], False))
        return shares

    def turns(self, parts: Sequence[T]) -> Iterator[tuple[T, bool]]:
        """Deal `parts` and give one after another; raise Stopped, together, when any process is asked to stop."""
        for part, counts in self.deal(parts):
            if self.stop_requested:
                raise Stopped
            yield part, counts

    def any(self, *flags: bool) -> bool:
        """Say, together, whether any flag is set anywhere."""
        return max(self.most([int(flag) for flag in flags])) > 0

    def most(self, numbers: Sequence[int]) -> list[int]:
        """Find, together, the largest of each of some numbers >= 0."""
        if self.size == 1:
            return list(numbers)
        import torch
        import torch.distributed as dist

        largest = torch.tensor(numbers)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return [int(number) for number in largest]

    def gather(self, value: Any) -> list[Any]:
        """Collect, together, a value of JSON from each process, in their order; tuples come back as lists."""
        if self.size == 1:
            return [value]
        import torch
        import torch.distributed as dist

        # Object collectives would do the same with pickle.
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.long) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(text)]))
        room = torch.zeros(max(int(length) for length in lengths), dtype=torch.uint8)
        room[: len(text)] = text
        texts = [torch.empty_like(room) for _ in range(self.size)]
        dist.all_gather(texts, room)
        pairs = zip(texts, lengths, strict=True)
        return [json.loads(each[: int(length)].numpy().tobytes()) for each, length in pairs]

    def lead(self, action: Callable[[], T]) -> T:
        """Let rank 0 do something, together: its JSON result, or the RlhfError it raises, is everyone's."""
        if self.size == 1:
            return action()
        answer: dict[str, Any] = {}
        failure: RlhfError | None = None
        if self.leads:
            try:
                answer = {"result": action()}
            except (RlhfError, OSError) as error:
                failure = known_failure(error)
                if failure is None:
                    raise
                answer = {"error": [type(failure).__name__, failure.message, failure.where, failure.fix]}
        answer = self.gather(answer)[0]
        if failure is not None:
            raise failure
        if "error" in answer:
            raise error_of(answer["error"])
        result: T = answer["result"]
        return result

    def agree(self, failure: RlhfError | None) -> None:
        """Raise, together, the error of the first process that has one."""
        if self.size == 1:
            if failure is not None:
                raise failure
            return
        if not self.any(failure is not None):
            return
        told = [type(failure).__name__, failure.message, failure.where, failure.fix] if failure else None
        first = next(each for each in self.gather(told) if each)
        raise failure or error_of(first)

    def add_up(self, tensor: "Tensor") -> "Tensor":
        """Replace a tensor, together, by the sum of everyone's; return it."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Go on, together, when all have come here."""
        self.any(False)

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Go through the block, together: rank 0 before all others, who find on disk what it has put there.

        Where rank 0 fails, all raise its error, and nobody else begins.
        """
        if not self.leads:
            self.agree(None)
        try:
            yield
        except RlhfError as error:
            if self.leads:
                self.agree(error)
            raise
        if self.leads:
            self.agree(None)


def error_of(told: Sequence[Any]) -> RlhfError:
    """Make the error again that another process has told of; of one with a name of its own, what it is a kind of."""
    name, message, where, fix = told
    kinds = {kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type)}
    kind = kinds.get(name, errors.DivergedError)
    error: RlhfError = kind(message, where=where, fix=fix)
    error.is_relayed = True
    return error


def join(stop: StopFlag | None = None, environment: Mapping[str, str] = os.environ) -> Ranks:
    """Join the other processes of the run, until this one ends: by gloo on CPUs, and NCCL between GPUs."""
    place = find_place(environment)
    if place.size > 1:
        import torch
        import torch.distributed as dist

        has_gpus = torch.cuda.is_available()
        if has_gpus:
            torch.cuda.set_device(place.local_index % torch.cuda.device_count())
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if has_gpus else "gloo",
            init_method=_meeting_point(environment),
            timeout=_LONGEST_WAIT,
            rank=place.index,
            world_size=place.size,
        )
    return Ranks(place, stop)


def leave(exit_code: int) -> NoReturn:
    """End a process of many at once: the threads of a process group can abort an interpreter that shuts down."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _meeting_point(environment: Mapping[str, str]) -> str:
    """Say where the processes meet: where torchrun says, else on the first host of a Slurm step."""
    if "MASTER_ADDR" in environment and "MASTER_PORT" in environment:
        return "env://"
    if "SLURM_STEP_NODELIST" not in environment:
        raise UnavailableError(
            "there are other processes, and nobody says where to meet them",
            where="MASTER_ADDR",
            fix="start the run by torchrun or srun, or set MASTER_ADDR and MASTER_PORT",
        )
    port = 20_000 + int(environment.get("SLURM_JOB_ID", "0")) % 20_000
    return f"tcp://{first_host(environment['SLURM_STEP_NODELIST'])}:{port}"


def first_host(hosts: str) -> str:
    """Find the first host in Slurm's shorthand: `gpu[003-005,9],login` -> gpu003."""
    head = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,]*))?", hosts)
    if head is None:
        raise UnavailableError(
            f"no host in SLURM_STEP_NODELIST: {hosts!r}", fix="set MASTER_ADDR and MASTER_PORT"
        )
    return "".join(part or "" for part in head.groups())
