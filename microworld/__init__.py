"""The embedded default problem: chains of arithmetic steps and a tiny policy that is lazy unless told otherwise.

``sentences``  the instruction sentences and their (hidden) effect on how far the writer goes
``problems``   families, lengths and splits
``corpus``     the grammar of the pre-training texts
``tokenizer``  a word-level Hugging Face tokenizer
``pretrain``   the tiny Llama and its pre-training
``competence`` the preconditions of the phenomenon, checked before any experiment starts
"""
