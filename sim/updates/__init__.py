"""Update protocols of data-parallel training: who computes on which parameters, and when it is applied."""
