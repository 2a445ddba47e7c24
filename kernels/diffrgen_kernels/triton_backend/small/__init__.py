"""Small shapes (the paper's own: 21 x 49 and 49 x 49): one program computes a whole study and head, all masks in turn.

There the number of launches and their latency are everything, so Eq. 5 is computed as it stands, with every logit of
every mask; nothing but the result is written.
"""

import torch
from torch import Tensor

MAX_KEYS = 64


def fits(q: Tensor, k: Tensor) -> bool:
    """Whether q (B, N, P, H, D) and k (B, M, P, H, D) are small: one program's registers hold a mask's work.

    Products of float32 run without tensor cores, on operands in registers, so that fewer of its shapes are small.
    """
    wide, dim = q.dtype == torch.float32, q.shape[4]
    max_rows = 64 if wide or dim > 64 else 128
    return q.shape[1] <= max_rows and k.shape[1] <= MAX_KEYS and dim <= (32 if wide else 128)
