"""Messages as flows: those that cross a link at the same time share it by max-min fairness."""
