"""The merge methods: each file a family, its formula beside the paper it comes from. `mergers/table.py` lists them."""
