"""What happened when: traces, their files and metrics."""
