"""What is learned and asked: examples, questions and how an answer is scored. Knows no model; imports only foundation."""
