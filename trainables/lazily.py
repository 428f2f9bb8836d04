"""torch for files of which a plan needs the configuration alone: imported when their mathematics is first used.

`from trainables.lazily import F, nn, torch` there, and `Tensor` for annotations under `TYPE_CHECKING`. A class derived
from `nn.Module` needs torch where it is defined: such classes lie in files of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.lazily import lazily

if TYPE_CHECKING:
    import torch as torch
    from torch import nn as nn
    from torch.nn import functional as F
else:
    torch, nn, F = lazily("torch"), lazily("torch.nn"), lazily("torch.nn.functional")
