"""The contract: what the tutorial answers, recorded, and where heroes answers differently on purpose."""
