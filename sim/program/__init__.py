"""A plan with seconds: operations on streams, the input of the engines."""
