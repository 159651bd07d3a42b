"""First floor: market environments that speak gymnax 1.x."""
