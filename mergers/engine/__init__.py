"""The machinery: how work is cut, what a worker does with its part, counting rounds, and how an output comes to be, whole or not at all."""
