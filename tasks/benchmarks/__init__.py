"""Published benchmarks as tasks: one file each with where its data comes from, how a question is put and how an answer is scored."""
