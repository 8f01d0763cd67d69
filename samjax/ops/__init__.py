"""Pure array functions: the mathematics of SAM, without parameters, modules or policy.

Numerics are written out: programs name their dtypes and ranks, so that no setting of JAX changes them. Logits, softmax,
norms, coordinates and Fourier features are float32 whatever the compute dtype.
"""
