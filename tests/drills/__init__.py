"""Drills: real servers are killed, raced and failed over under load, and every answer they gave is held against what
is stored. `python -m tests.drills [--quick] [crash] [race] [failover] [starts]`."""
