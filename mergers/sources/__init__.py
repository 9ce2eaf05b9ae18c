"""What is merged: sources, views of them, and whether their names, configs and tensors fit one another. From headers and configs only."""
