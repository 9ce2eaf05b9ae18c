"""Whether this machine, or every node of a cluster, has what a run needs: asked in seconds, before hours of work depend on it."""
