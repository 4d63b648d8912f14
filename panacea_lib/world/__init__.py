"""The embedded world: a small synthetic assistant whose optimal policies are known exactly.

Prompts and answers come from a grammar (`grammar`), gold scoring functions rate them on up to ten
dimensions (`gold`), annotators label pairs with noise (`annotators`), and because the answers to
a prompt can be enumerated, so can the optimum (`exact`). It is the ruler the methods are measured
with, and what a newcomer sees in the first five minutes.
"""
