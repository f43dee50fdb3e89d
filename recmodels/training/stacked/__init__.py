"""Any `torch.nn.Module` as a population: M copies in one set of tensors, trained by torch and compiled code."""
