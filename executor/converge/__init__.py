"""Update protocols run for real."""
