"""GEPA over templates: the gepa library searches; here stand what it rolls out, whom it mutates and how.

``adapter``     scores templates by rolling the policy out    ``sampling``  distinct parents from the Pareto front
``reflectors``  who proposes new templates                    ``evolve``    one search, from hard set to template set
"""
