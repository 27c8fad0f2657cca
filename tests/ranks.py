"""Tests of several ranks, without a new torch for each: ranks are forked from one process that has it.

The first call starts that process, which imports torch and the executor once (2 to 3 s); each call then forks
its ranks from it (some 20 ms), so that nothing of one call is left for the next. A rank has one thread and is
not pinned. `run_ranks` gives what the function returned on each rank, and raises `RankError` with the
traceback of a rank that failed; ranks that are not done in time are killed, and their stacks are shown.
"""

from __future__ import annotations

import atexit
import faulthandler
import importlib
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
IMPORTED_ONCE = (
    "pytest",
    "torch.distributed.pipelining",
    "torch.distributed.fsdp",
    "torch.nn.parallel",
    "torch.utils.checkpoint",
    "traincast.executor.run.worker",
)
"""What ranks find imported; this also imports what these import."""
TIMEOUT_S = 120.0
GRACE_S = 3.0
"""How long the others may go on once a rank has failed: what they say of it may help."""
SHOWN = 4000
"""Characters of a rank's output in an error."""


class RankError(Exception):
    """A rank raised, died or hung; the message has its traceback and what it printed."""


class Call(NamedTuple):
    """What the ranks are to do."""

    count: int
    module: str
    file: str
    function: str
    arguments: bytes
    joined: bool
    timeout_s: float
    directory: str


def run_ranks(
    count: int,
    function: str | Callable[..., Any],
    *arguments: Any,
    joined: bool = True,
    timeout_s: float = TIMEOUT_S,
) -> list[Any]:
    """``function(rank, *arguments)`` on ``count`` ranks: what it returned, by rank.

    ``function`` is at the top of a module, or names one as `package.module:function`. The ranks are
    ``joined`` in a default gloo group, which ends with the call; without, the function sees to that itself.
    What goes in and comes out is pickled, by and for our own processes.

    Raises:
        RankError: a rank raised, died, or was not done after ``timeout_s``.
    """
    if _FORKED:
        raise RankError("a rank starts no ranks of its own")
    if isinstance(function, str):
        module, name = function.split(":")
        file = ""
    else:
        module, name = function.__module__, function.__qualname__
        file = str(getattr(sys.modules[module], "__file__", "") or "")
    with tempfile.TemporaryDirectory(prefix="ranks-") as directory:
        call = Call(count, module, file, name, pickle.dumps(arguments), joined, timeout_s, directory)
        answer = _template().ask(call)
    if isinstance(answer, str):
        raise RankError(answer)
    return [pickle.loads(part) for part in answer]  # noqa: S301


class _Template:
    """The process that ranks are forked from, as its parent sees it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.connection, theirs = Pipe()
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=environment
        )
        theirs.close()

    def ask(self, call: Call) -> list[bytes] | str:
        self.connection.send_bytes(pickle.dumps(call))
        try:
            return pickle.loads(self.connection.recv_bytes())  # noqa: S301
        except EOFError:
            raise RankError(f"the process that forks ranks died with {self.process.wait()}") from None

    @property
    def alive(self) -> bool:
        return self.owner == os.getpid() and self.process.poll() is None

    def close(self) -> None:
        if self.owner == os.getpid():
            self.connection.close()
            self.process.wait()


_STARTED: list[_Template] = []
_FORKED: list[int] = []
"""The rank that this process is."""


def _template() -> _Template:
    if not _STARTED or not _STARTED[-1].alive:
        _STARTED.append(_Template())
        atexit.register(_STARTED[-1].close)
    return _STARTED[-1]


# Below is what runs in the process that ranks are forked from, and in the ranks.


def _serve(connection: Connection) -> None:
    """Answer calls until the parent has gone."""
    from traincast.executor.run.process import die_with_parent

    die_with_parent()
    for name in IMPORTED_ONCE:
        importlib.import_module(name)
    while True:
        try:
            call = pickle.loads(connection.recv_bytes())  # noqa: S301
        except (EOFError, ConnectionResetError):
            return
        connection.send_bytes(pickle.dumps(_run(call)))


def _run(call: Call) -> list[bytes] | str:
    """What the ranks returned, pickled, or what went wrong."""
    readers: list[Connection] = []
    pids = []
    for rank in range(call.count):
        reader, writer = Pipe(duplex=False)
        pid = os.fork()
        if pid == 0:
            _be(rank, call, writer)
        writer.close()
        readers.append(reader)
        pids.append(pid)
    answers, trouble = _collect(call, readers, pids)
    for pid in pids:
        _kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for reader in readers:
        reader.close()
    if not trouble:
        return [answers[rank] for rank in range(call.count)]
    return "\n".join(trouble + [_output(call, rank) for rank in range(call.count)])


def _collect(call: Call, readers: list[Connection], pids: list[int]) -> tuple[dict[int, bytes], list[str]]:
    """Answers by rank, and troubles in the order in which they came."""
    answers: dict[int, bytes] = {}
    trouble: list[str] = []
    deadline = time.monotonic() + call.timeout_s
    waiting = dict(enumerate(readers))
    while waiting:
        ready = wait(list(waiting.values()), max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        for rank in [rank for rank, reader in waiting.items() if reader in ready]:
            try:
                good, payload = pickle.loads(waiting.pop(rank).recv_bytes())  # noqa: S301
            except EOFError:
                good, payload = False, "it died without a word"
            if good:
                answers[rank] = payload
                continue
            if not trouble:
                deadline = min(deadline, time.monotonic() + GRACE_S)
            trouble.append(f"rank {rank} of {call.count} failed: {payload}")
    if waiting and not trouble:
        trouble.append(f"ranks {sorted(waiting)} of {call.count} are not done after {call.timeout_s:g} s")
        for rank in waiting:
            _kill(pids[rank], signal.SIGUSR1)
        time.sleep(0.3)
    return answers, trouble


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _output(call: Call, rank: int) -> str:
    text = Path(call.directory, f"output.{rank}").read_text(errors="replace").strip()
    return f"--- rank {rank} printed:\n{text[-SHOWN:]}" if text else ""


def _be(rank: int, call: Call, writer: Connection) -> None:
    """Be one rank, and never return."""
    from traincast.executor.run.process import die_with_parent

    sys.modules.setdefault("ranks", sys.modules[__name__])  # a test module that a rank loads imports it
    _FORKED.append(rank)
    file = os.open(Path(call.directory, f"output.{rank}"), os.O_CREAT | os.O_WRONLY, 0o600)
    for number in (1, 2):
        os.dup2(file, number)
    os.environ.pop("TRAINCAST_PARENT", None)
    die_with_parent()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    try:
        answer: tuple[bool, Any] = (True, pickle.dumps(_do(rank, call)))
    except BaseException:
        answer = (False, traceback.format_exc())
    writer.send_bytes(pickle.dumps(answer))
    sys.stdout.flush()
    os._exit(0)


def _do(rank: int, call: Call) -> Any:
    import torch
    import torch.distributed as dist
    from torch._C._distributed_c10d import FileStore

    torch.set_num_threads(1)
    function: Any = _module(call.module, call.file)
    for name in call.function.split("."):
        function = getattr(function, name)
    arguments = pickle.loads(call.arguments)  # noqa: S301
    if not call.joined:
        return function(rank, *arguments)
    store = FileStore(str(Path(call.directory, "store")), call.count)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=call.count)
    found = function(rank, *arguments)
    dist.barrier()  # nobody closes its connections while others use them
    dist.destroy_process_group()
    return found


def _module(name: str, file: str) -> ModuleType:
    """The module ``name``; one that pytest imported from ``file``, or a script, is not found by its name."""
    if name == "__main__":
        return _load("__mp_main__", file)
    if name in sys.modules:
        return sys.modules[name]
    try:
        found = importlib.import_module(name)
    except ImportError:
        if not file:
            raise
    else:
        if not file or Path(str(found.__file__)).samefile(file):
            return found
    return _load(name, file)


def _load(name: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    for end in (place for place, letter in enumerate(name) if letter == "."):
        # Packages that only pytest knows; pickle looks for the first of them.
        sys.modules.setdefault(name[:end], ModuleType(name[:end]))
    sys.modules[name] = found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
