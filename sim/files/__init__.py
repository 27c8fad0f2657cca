"""Files that people write or that come from others: read as untrusted data, written safely."""
