"""Images with text: what a modality-expert transformer learns from and is asked. Knows no model; imports only foundation and tasks."""
