"""Before anything starts: can this machine run the recipe (doctor), does it run at all (dry run), and what will it
take (plan: ``shapes`` of the model, ``work`` in tokens and passes, ``speed`` of this machine)?"""
