"""Git, worktrees of a commit, and the results that runs leave in refs."""
