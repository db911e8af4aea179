"""The best scores first, with ties broken as on the host: of equal scores the lower index."""

from __future__ import annotations

import torch
from torch import Tensor

from lensmount.backend import settled


@settled()
def top_k(scores: Tensor, k: int, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The `k` best of each row.

    Score and index go into one whole number, so that no two are equal: `torch.topk` alone leaves open which of equal
    values it takes.

    Args:
        scores: float32 `(B, N)`; those allowed are not negative. NaN counts as not allowed.
        k: At most N.
        allowed: bool `(B, N)`; None for all.

    Returns:
        int64 `(B, k)` indices, the best first, and bool `(B, k)`: which of them are allowed; those come first.
    """
    allowed = scores >= 0 if allowed is None else allowed & (scores >= 0)
    count = scores.shape[1]
    # The bits of floats from 0 up grow with them; adding 0 makes -0 positive.
    bits = (scores.float() + 0.0).contiguous().view(torch.int32).to(torch.int64)
    behind = torch.arange(count - 1, -1, -1, device=scores.device)
    keys = torch.where(allowed, (bits << 32) | behind, -1)
    best = torch.topk(keys, k, dim=1).values
    real = best >= 0
    return torch.where(real, (count - 1) - (best & 0xFFFFFFFF), 0), real
