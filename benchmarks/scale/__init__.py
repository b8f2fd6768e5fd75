"""What a call costs when there is more of everything: pipelines, hosts, waiters, listeners, threads, calls."""
