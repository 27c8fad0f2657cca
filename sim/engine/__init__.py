"""The engines that run a program: the reference and the arrays."""
