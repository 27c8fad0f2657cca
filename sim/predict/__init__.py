"""The door of the simulator: simulate(plan, cluster)."""
