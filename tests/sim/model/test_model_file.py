"""Model files: what is no regular file is not opened."""

from __future__ import annotations

import os

import pytest

from traincast.sim.errors import InputError
from traincast.sim.model.hf_config import read_model
from traincast.sim.model.model_file import is_model_file


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    """One that answers as a model file would: it is refused for what it is."""
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    os.write(writer, b'{"schema": "traincast.model/1"}')
    try:
        assert not is_model_file(pipe)
        with pytest.raises(InputError, match=r"pipe\.json: a named pipe -> expected a regular file"):
            read_model(pipe)
    finally:
        os.close(writer)
