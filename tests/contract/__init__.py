"""The contract: the tutorial's recorded responses, and where heroes deviates from them on purpose."""
