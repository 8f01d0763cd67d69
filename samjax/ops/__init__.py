"""Pure array functions: the mathematics of SAM, without parameters, modules or policy."""
