"""One language model, every preference: Panacea (arXiv 2402.02030) as a library."""
