"""A model that is no decoder, with what it is trained on, as one line of text for a task."""

from __future__ import annotations

import json

from ...sim.model.model import Model
from ...sim.plan.job import Job
from ..model.references import look_in


def trained_text(job: Job, folder: str) -> str:
    """``job``'s model, data and loss; code of the user's own is found in ``folder``. Its batch and sequence
    length are the task's to say."""
    told = {"model": job.model.to_dict(), "data": job.data, "loss": job.loss}
    if job.references:
        told["folder"] = folder
        told["global_batch"] = job.global_batch
    return json.dumps(told, sort_keys=True)


def trained_job(text: str, *, global_batch: int, seq_len: int, optimizer: str, precision: str) -> Job:
    """The job that `trained_text` wrote, of another batch where its samples are not a user's, which may come
    in one size. Modules are looked for in its folder from now on."""
    told = json.loads(text)
    if "folder" in told:
        look_in(told["folder"])
    return Job(
        model=Model.from_dict(told["model"]),
        global_batch=told.get("global_batch", global_batch),
        seq_len=seq_len,
        optimizer=optimizer,
        precision=precision,
        data=told["data"],
        loss=told["loss"],
    )
