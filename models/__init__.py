"""Models as checkpoints: loading and saving, named parts, prompts, and the demo's tiny vision-language model. Knows no task."""
