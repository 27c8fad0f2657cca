"""From a schedule's passes to all that ranks do: small passes over lists of actions, one concern each."""
