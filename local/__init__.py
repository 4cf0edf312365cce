"""The whole of Magpie on one machine, loopback only and without Docker, and its command line."""
