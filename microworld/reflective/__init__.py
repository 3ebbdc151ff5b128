"""The second embedded world: a tiny policy with flaws that reads its own failures and advises itself.

``chains``     arithmetic steps modulo 50, in four families
``flaws``      what a student does wrong; how an answer is written
``language``   1,152 instruction sentences, few of which help and a few of which harm
``students``   failures as a reviewer sees them, those of other students among them
``corpus``     the pre-training texts: solutions and reviews
``tokenizer``  their words
``problems``   chains that no flaw solves, in splits
``competence`` the preconditions of the phenomenon, checked before any experiment starts
"""
