"""How the small digits model is made from a seed."""
