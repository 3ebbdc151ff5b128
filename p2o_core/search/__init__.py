"""The search for templates: GEPA with a budget of its own, or online, where training rollouts are the scores. The gepa
library searches; this package says what it rolls out, whom it mutates and how.

``schedule``    when a search is due, and the controls without one
``adapter``     scores templates by rolling the policy out    ``sampling``  distinct parents from the Pareto front
``reflectors``  proposes from a pool of phrases               ``evolve``    one search, from hard set to template set
``demonstrations``  shows the policy's own right answers
``reflection``  lets a language model propose                 ``proposals`` refuses templates that give answers away
``racing``      stops scoring candidates far behind           ``replies``   what stands where in a model's reply
``online``      reflects on training rollouts' failures       ``posterior`` what training rollouts say of templates
"""
