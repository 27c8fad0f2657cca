"""The reference engine of update protocols: workers, servers and interfaces as simpy processes.

To be believed by reading: `simpy_workers.py` has the rounds, `simpy_servers.py` the updates,
`simpy_synchrony.py` who waits for whom, `simpy_network.py` and `simpy_processors.py` what all of it takes,
`simpy_clock.py` what goes first at one moment.
"""

from __future__ import annotations

from .model import UpdateModel
from .record import UpdateRecord
from .simpy_clock import Clock
from .simpy_network import Network
from .simpy_processors import Processors
from .simpy_servers import Servers
from .simpy_synchrony import Synchrony
from .simpy_workers import Workers
from .tables import listed, make_record, make_tables


def run(model: UpdateModel) -> UpdateRecord:
    """The record of a checked model with servers."""
    tables = listed(make_tables(model))
    clock = Clock(tables.items)
    network = Network(clock, tables, Processors(clock, tables))
    synchrony = Synchrony(clock, tables)
    servers = Servers(clock, tables, network, synchrony)
    Workers(clock, tables, network, synchrony, servers).begin()
    clock.run()
    return make_record(tables)
