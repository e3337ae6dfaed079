"""Drills: real servers are killed, raced, failed over and cut off under load, and every answer they gave is held
against what is stored. `python -m tests.drills [--quick] [crash] [race] [failover] [partition] [starts]`."""
