"""Run by torchrun: one step of a tiny model in torch's FSDP2 shards, made whole again in the first process, which writes it.

    torchrun --nproc-per-node 2 tests/shards.py OUT.safetensors
"""

from __future__ import annotations

import sys

import torch
from safetensors.torch import save_file

import tiny
from polygraft import ranks
from polygraft.tune import processes


def main(out: str) -> None:
    with ranks.joined() as here:
        net = tiny.model("llama", seed=1)
        if here.size > 1:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh("cpu", (here.size,))
            for layer in net.model.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(net, mesh=mesh)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
        ids = torch.arange(32).reshape(4, 8)
        mine = ids[here.rank * len(ids) // here.size : (here.rank + 1) * len(ids) // here.size]
        net(input_ids=mine, labels=mine).loss.backward()
        optimizer.step()
        processes.whole(net, [name for name, _ in net.named_parameters()], here)
        if here.rank == 0:
            save_file({name: p.detach().clone() for name, p in net.named_parameters()}, out)


if __name__ == "__main__":
    main(sys.argv[1])
