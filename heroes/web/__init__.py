"""FastAPI's behaviour on Flask; pages, ETags and safe retries for any resource. It knows none itself."""
