"""How the processes are seen: logs, metrics and health. Knows no domain type and no network library."""
