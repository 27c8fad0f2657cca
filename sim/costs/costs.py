"""What a plan's actions cost, for one job with one strategy on one cluster, by subject.

All values are those of one rank, in seconds and bytes, without contention for cores: whoever builds the
program applies `concurrency_factor` and places operations on shared cores and links. What layers add up to
is in `stage.py`.
"""

from __future__ import annotations

from ..hardware.cluster import Cluster
from ..plan.job import Job
from ..plan.rank_groups import Groups
from ..plan.strategy import Strategy
from .communication import CommunicationCosts
from .compute import ComputeCosts
from .exchanges import ExchangeCosts
from .optimizer import OptimizerCosts
from .remembered import Remembered


class Costs:
    """What layers, optimizer steps, messages and collectives take.

    ``remembered`` shares results among strategies of one job on one cluster.
    """

    def __init__(self, cluster: Cluster, job: Job, strategy: Strategy, remembered: Remembered | None = None):
        known = Remembered() if remembered is None else remembered
        self.cluster, self.job, self.strategy = cluster, job, strategy
        self.is_executed = strategy.software.autocast or cluster.accelerator.kind == "cpu"
        """Whether it is `traincast run` that trains, which does some things in another way than others do."""
        self.groups = Groups(strategy)
        self.compute = ComputeCosts(cluster, job, strategy, known)
        self.communication = CommunicationCosts(cluster, job, strategy, self.groups, known)
        self.exchanges = ExchangeCosts(self.compute, self.communication, is_executed=self.is_executed)
        self.optimizer = OptimizerCosts(cluster, job, strategy, self.communication)
