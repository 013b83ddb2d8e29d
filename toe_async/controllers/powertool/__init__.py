"""PowerTool: tools run beside chosen containers. `plan` and what it imports decide, all else reads and acts."""
