"""Predictions scored on measurements that others published: tables in, errors by source out."""
