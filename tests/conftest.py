"""Tests run side by side, so that each of them keeps to one core."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
