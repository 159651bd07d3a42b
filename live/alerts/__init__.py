"""Alerts: what people are told and how often, delivered by a process of its own."""
