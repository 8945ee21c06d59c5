"""Networks on integers: the same numbers on every machine, thread count, batch size and device.

A trained float network becomes one whose weights and activations are integers carried in float tensors, with every
partial sum below 2^24, where float32 is exact in any order of summation (2^53 in float64).
"""
