"""An experiment as a job of a Ray cluster: what it needs there, what travels with it, and the talk with the cluster's job server."""
