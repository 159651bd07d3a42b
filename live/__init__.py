"""Roof, production side: exported policies and all that trades with them."""
