"""What operators need: logs, metrics, health, access control."""
