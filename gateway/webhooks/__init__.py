"""Webhooks out: endpoints, signatures, lanes in order, attempts (Standard Webhooks 1.0)."""
