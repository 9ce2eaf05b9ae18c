"""How published benchmarks compare a response with the right answer: pure functions on text, one file for each rule."""
