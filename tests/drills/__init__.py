"""Drills: kill, race, fail over and cut off real servers under load, and compare their responses with what is stored.

`python -m tests.drills [--quick] [crash] [race] [failover] [partition] [patroni] [replicas] [starts]`
"""
