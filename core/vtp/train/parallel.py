"""One model on one or many processes: plain, DDP or FSDP2, behind one small class.

Whatever the strategy, :meth:`Parallel.full_state` gives the unsharded weights and :meth:`Parallel.load_full_state`
takes them, so that a checkpoint written by 8 sharded processes loads into one process and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from vtp import distributed
from vtp.errors import ConfigError
from vtp.train.config import TrainConfig

if TYPE_CHECKING:
    from vtp.model.model import VTPModel

__all__ = ["Parallel", "full_tensor", "shard_like"]


class Parallel:
    """The model, wrapped.

    Attributes:
        model: the unwrapped module; under fsdp2 its parameters are shards (DTensor).
        forward: what training calls. One call per backward pass, everything inside it: DDP and FSDP2 only see what goes
            through here.
        parameters: (name, parameter) of the trainable parameters, in model order.
    """

    def __init__(self, model: VTPModel, config: TrainConfig, device: torch.device) -> None:
        self.model = model.to(device)
        self.forward: Callable[..., dict[Any, Tensor]] = self.model
        self.name = "single"
        self._blocks: list[FSDPModule] = []
        if distributed.world_size() > 1:
            if config.sync_batchnorm:
                _synchronise_batchnorm(self.model, device)
            _broadcast(self.model)
            self.name = "fsdp2" if config.strategy == "fsdp2" else "ddp"
            if self.name == "fsdp2":
                self._shard(device)
        self.parameters = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        if self.name == "ddp":
            self.forward = DistributedDataParallel(
                self.model,
                device_ids=[device.index] if device.type == "cuda" else None,
                find_unused_parameters=config.find_unused_parameters,
                gradient_as_bucket_view=True,
                broadcast_buffers=False,  # it would overwrite buffers that an earlier micro-batch still needs
            )

    def _shard(self, device: torch.device) -> None:
        scalars = [name for name, parameter in self.model.named_parameters() if parameter.ndim == 0]
        if scalars:
            raise ConfigError(
                f"train.strategy=fsdp2 cannot shard parameters without a dimension: {', '.join(scalars)}. "
                "Give them shape (1,), or use train.strategy=ddp."
            )
        mesh = init_device_mesh(device.type, (distributed.world_size(),))
        for block in _blocks(self.model):
            self._blocks.append(fully_shard(block, mesh=mesh))
        fully_shard(self.model, mesh=mesh)

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        """Context of one micro-batch: gradients are exchanged in the last one only.

        FSDP2 exchanges in every one: keeping unsharded gradients would need the memory that sharding is to save.
        """
        if self.name == "ddp" and not last:
            wrapped = self.forward
            assert isinstance(wrapped, DistributedDataParallel)
            return wrapped.no_sync()
        return nullcontext()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Let processes run different numbers of forward passes: whole weights on each, no communication inside. All
        ranks must enter it."""
        self.share_statistics()
        root = self.model
        if not isinstance(root, FSDPModule):
            yield
            return
        root.set_reshard_after_forward(False)
        for module in (root, *self._blocks):
            module.reshard()  # a copy that is still unsharded from training may be older than the shards
            module.unshard()
        try:
            yield
        finally:
            for block in self._blocks:
                block.set_reshard_after_forward(True, recurse=False)
            self.reshard()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Whole weights inside, on every process; what is written into them stays. All ranks must write the same."""
        root = self.model
        if not isinstance(root, FSDPModule):
            yield
            return
        self.reshard()
        shards = dict(root.named_parameters())
        for module in (root, *self._blocks):
            module.unshard()
        try:
            yield
            with torch.no_grad():
                for name, parameter in root.named_parameters():
                    shards[name].copy_(shard_like(parameter.detach(), shards[name]))
        finally:
            self.reshard()

    @torch.no_grad()
    def share_statistics(self) -> None:
        """Give all processes the mean of their running statistics of BatchNorm. All ranks must call it.

        Each process normalises by its own batches and counts them for itself; evaluated by several, one model would be
        as many.
        """
        if distributed.world_size() == 1:
            return
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for statistic in (module.running_mean, module.running_var):
                    if statistic is not None:
                        dist.all_reduce(statistic)
                        statistic.div_(distributed.world_size())

    def reshard(self) -> None:
        """Make the shards the truth again, after forward passes without a backward pass."""
        if isinstance(self.model, FSDPModule):
            for module in (self.model, *self._blocks):
                module.reshard()

    def full_state(self, replace: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The whole state dict on the CPU of rank 0, {} on the others. All ranks must call it.

        Args:
            replace: parameter name -> tensor to take in place of the parameter, shaped and sharded like it (an
                average).

        Names that share one parameter share one tensor in the result.
        """
        self.reshard()
        self.share_statistics()
        known = dict(replace or {})
        owner = {id(parameter): name for name, parameter in self.parameters}
        done: dict[int, Tensor] = {}
        state: dict[str, Tensor] = {}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            key = id(tensor)
            if key not in done:
                source = known.get(owner.get(key, ""), tensor)
                done[key] = full_tensor(source)
            if distributed.is_main():
                state[name] = done[key]
        return state

    def load_full_state(self, read: Callable[[str], Tensor | None]) -> list[str]:
        """Fill every parameter and buffer from ``read(name)``, which gives the whole tensor or None if it is not there.

        Returns:
            names that were not there, under none of the names that share their tensor.

        Raises:
            ValueError: a tensor has another shape.
        """
        self.reshard()
        names: dict[int, list[str]] = {}
        targets: dict[int, Tensor] = {}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            names.setdefault(id(tensor), []).append(name)
            targets[id(tensor)] = tensor
        missing = []
        for key, target in targets.items():
            value = next((v for v in map(read, names[key]) if v is not None), None)
            if value is None:
                missing.append(names[key][0])
                continue
            if value.shape != target.shape:
                raise ValueError(f"{names[key][0]} has shape {tuple(value.shape)} there and {tuple(target.shape)} here")
            with torch.no_grad():
                target.copy_(shard_like(value, target))
        return missing


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a possibly sharded tensor as a CPU copy. All ranks must call it."""
    whole = tensor.detach()
    if isinstance(whole, DTensor):
        whole = whole.full_tensor()
    return whole.to("cpu", copy=True) if distributed.is_main() else whole


def shard_like(whole: Tensor, target: Tensor) -> Tensor:
    """``whole`` moved and cut to this process's share of ``target``; every process holds ``whole`` itself."""
    moved = whole.to(target.device, target.dtype)
    if isinstance(target, DTensor):
        return distribute_tensor(moved, target.device_mesh, target.placements, src_data_rank=None)
    return moved


def _synchronise_batchnorm(model: nn.Module, device: torch.device) -> None:
    """Let every BatchNorm of a model normalise by the batches of all processes; parameters, buffers and names stay.

    Raises:
        ConfigError: the processes do not run on GPUs, for which alone torch has it; or a layer does more than BatchNorm
            does, which torch's replacement would leave out.
    """
    if device.type != "cuda":
        raise ConfigError(
            f"train.sync_batchnorm=true needs GPUs, and this run is on {device.type}: torch.nn.SyncBatchNorm has no "
            "other. Without it every process normalises by its own batch."
        )
    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and type(module) not in plain:
            raise ConfigError(
                f"train.sync_batchnorm=true: {name} is a {type(module).__name__}, which may do more than torch's "
                "BatchNorm, such as an activation, and cannot be replaced by SyncBatchNorm. Leave the option out, or "
                "choose an encoder with plain BatchNorm (resnet18)."
            )
    nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]


def _broadcast(model: nn.Module) -> None:
    """Start every process from the weights of rank 0."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            value = tensor.detach().contiguous()
            dist.broadcast(value, 0)
            if value.data_ptr() != tensor.data_ptr():
                tensor.copy_(value)


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """What is sharded one by one: the layers, that is, composite members of lists; the rest goes with the whole model.

    Of nested lists (stages of layers) the innermost are taken. A layer that shares a parameter with a module outside of
    it stays with the whole model: FSDP2 needs all users of a parameter in one group.
    """
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found: dict[int, nn.Module] = {}
    for module in model.modules():
        for block in _layers(module):
            own = [id(p) for m in block.modules() for p in m.parameters(recurse=False)]
            alone = all(owners[p] == own.count(p) for p in own)
            if own and alone and not any(_layers(inner) for inner in block.modules()):
                found[id(block)] = block
    yield from found.values()


def _layers(module: nn.Module) -> list[nn.Module]:
    """Members with parts of their own of a list of at least two."""
    if not isinstance(module, nn.ModuleList | nn.Sequential) or len(module) < 2:
        return []
    return [member for member in module if next(member.children(), None) is not None]
