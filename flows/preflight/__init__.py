"""Before anything starts.

``doctor``   can this machine run the recipe?       ``dry_run``  does it run at all, with everything tiny?
``shapes``   the model's size: memory and disk      ``work``     tokens and passes that it will take
``speed``    of this machine: hours and dollars     ``scaling``  how it spreads over many accelerators
``display``  prints all of these
"""
