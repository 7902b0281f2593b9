"""Models on several processes: weights that each holds whole, or that are shared out among them (FSDP2).

With `ddp` nothing is wrapped: each process holds every weight, and gradients are added up once per optimizer step.
With `fsdp` each holds a part of every weight, and whole layers exist while they compute (Zhao et al. 2023). Either
way gradients are sums over all processes, never means.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from rlhf_cli.config.sections import Distributed
from rlhf_cli.errors import ConfigError
from rlhf_cli.models.device import num_parameters
from rlhf_cli.models.load import LoadedModel
from rlhf_cli.models.save import save_trained
from rlhf_cli.run.ranks import Ranks
from rlhf_cli.run.session import Run

# Weights, gradients and two moments in fp32; with `auto` they may take half of a GPU before they are shared out.
_BYTES_PER_PARAMETER = 16


def share_out(models: list[tuple[LoadedModel, nn.Module]], settings: Distributed, ranks: Ranks) -> None:
    """Share the weights of models out, where the strategy is fsdp; each with the module that is called of it.

    What is outside of that module, such as the score head of a classifier, stays whole everywhere.
    """
    if ranks.size == 1 or not _wants_sharding(settings, [loaded for loaded, _ in models]):
        return
    device = models[0][0].device
    mesh = _make_mesh(settings, ranks, device)
    offload = CPUOffloadPolicy(pin_memory=device.type == "cuda") if settings.cpu_offload else OffloadPolicy()
    for loaded, called in models:
        kinds = set(loaded.core._no_split_modules or ())
        blocks = [module for module in called.modules() if type(module).__name__ in kinds]
        for module in chain(blocks, [called]):
            # Also the outermost: left whole after a forward pass, its weights would be other parameters.
            sharded = fully_shard(module, mesh=mesh, offload_policy=offload, reshard_after_forward=True)
            # Sums, as everywhere; the reductions that scale on the way are for NCCL alone.
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)


def _wants_sharding(settings: Distributed, models: list[LoadedModel]) -> bool:
    if settings.strategy != "auto":
        return settings.strategy == "fsdp"
    device = models[0].device
    if device.type != "cuda":
        return False
    needed = sum(num_parameters(loaded.model) for loaded in models) * _BYTES_PER_PARAMETER
    return needed > torch.cuda.get_device_properties(device).total_memory / 2


def _make_mesh(settings: Distributed, ranks: Ranks, device: torch.device) -> DeviceMesh:
    size = settings.shard_size or ranks.size
    if ranks.size % size:
        raise ConfigError(
            f"{ranks.size} processes cannot form groups of {size}",
            where="distributed.shard_size",
            fix="choose a divisor of the number of processes",
        )
    if size == ranks.size:
        return init_device_mesh(device.type, (size,))
    return init_device_mesh(device.type, (ranks.size // size, size), mesh_dim_names=("copies", "shards"))


def is_shared_out(module: nn.Module) -> bool:
    """Say whether weights are in parts, though they may be gathered for now."""
    return any(isinstance(part, FSDPModule) for part in module.modules())


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Hold, together, every weight whole inside the block, so that processes may compute at a pace of their own."""
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def whole(tensor: Tensor) -> Tensor:
    """Put, together, the parts of a tensor into one; any other tensor is whole already."""
    if not isinstance(tensor, DTensor):
        return tensor
    full: Tensor = tensor.full_tensor()
    return full


def fill(target: Tensor, value: Tensor, ranks: Ranks) -> None:
    """Put, together, rank 0's `value` into `target`, or this process's part of it; elsewhere only its shape counts."""
    if ranks.size == 1:
        target.copy_(value)
        return
    full = torch.empty(value.shape, dtype=value.dtype, device=target.device)
    if ranks.leads:
        full.copy_(value)
    if isinstance(target, DTensor):
        target.copy_(distribute_tensor(full, target.device_mesh, target.placements))
    else:
        dist.broadcast(full, 0)
        target.copy_(full)


def save_together(loaded: LoadedModel, run: Run, reopen: Callable[[], LoadedModel]) -> None:
    """Let rank 0 write a stage's result, together; `reopen` makes the model again as it was, whole, to be filled."""
    if not is_shared_out(loaded.model):
        run.ranks.lead(lambda: save_trained(loaded, run.dir))
        return
    values = {}
    for name, parameter in loaded.model.named_parameters():
        if parameter.requires_grad:
            value = whole(parameter.detach())
            if run.ranks.leads:
                values[name] = value.cpu()

    def write() -> None:
        plain = reopen()
        with torch.no_grad():
            for name, parameter in plain.model.named_parameters():
                if name in values:
                    parameter.copy_(values[name])
        save_trained(plain, run.dir)

    run.ranks.lead(write)
