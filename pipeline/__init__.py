"""The experiment: recipes make steps, steps make a graph, the graph runs on Ray, records are kept in a store and mirrored to MLflow.

The only package that imports the libraries (trainers, mergers, evaluators), Ray or MLflow.
"""
