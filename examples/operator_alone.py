"""The operator without the network: routed co-attention between any rows and the patches of an image.

    python examples/operator_alone.py

It needs `diffrgen-kernels` alone. Each of 21 rows attends to 14 x 14 patches under three windows, which a router weighs.
"""

from __future__ import annotations

import torch
from diffrgen_kernels import available_backends, routed_coattention
from torch import Tensor, nn

GRID, ORDERS = (14, 14), (0, 1, 2)  # all patches, 3 x 3 and 5 x 5 patches


class WindowRouting(nn.Module):
    """A layer that takes the place of cross-attention: queries (B, N, d), patches (B, 196, d) -> (B, N, d)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, len(ORDERS) * width)
        self.key_value = nn.Linear(width, 2 * len(ORDERS) * width)
        self.router = nn.Linear(width, len(ORDERS))
        self.output = nn.Linear(width, width)

    def forward(self, rows: Tensor, patches: Tensor) -> Tensor:
        """Return the rows, each mixed from the patches."""
        masks, heads = len(ORDERS), self.heads
        q = self.query(rows).unflatten(-1, (masks, heads, -1))  # (B, N, P, H, D)
        k, v = self.key_value(patches).unflatten(-1, (2, masks, heads, -1)).unbind(2)  # (B, M, P, H, D)
        alpha = self.router(patches.mean(1)).float().softmax(-1)  # (B, P)
        mixed = routed_coattention(q, k, v, alpha, grid=GRID, orders=ORDERS)  # (B, N, H, D)
        return self.output(mixed.flatten(2))


def main() -> None:
    """Train the layer for a few steps to find, in each image, the patch of the largest value."""
    for name, state in available_backends().items():
        print(f"{name}: {state}")
    torch.manual_seed(0)
    layer, rows = WindowRouting(width=32, heads=4), torch.randn(8, 21, 32)
    patches = torch.randn(8, GRID[0] * GRID[1], 32)
    target = patches.amax(1, keepdim=True)  # (B, 1, d)
    optimiser = torch.optim.Adam(layer.parameters(), lr=1e-2)
    for step in range(31):
        loss = (layer(rows, patches) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 10 == 0:
            print(f"step {step}: loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
