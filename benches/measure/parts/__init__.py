"""One module a goal; each has `run(bench)`, which yields its figures as they are measured."""
