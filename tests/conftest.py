"""Without a GPU, Triton kernels run in Triton's interpreter: slow, exact, on any machine."""

import os

import hypothesis
import torch

torch.set_num_threads(1)  # two test processes share two cores
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
    torch.use_deterministic_algorithms(True, warn_only=True)  # PyTorch then fills fresh memory with NaN

hypothesis.settings.register_profile("equitorch", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("equitorch")
