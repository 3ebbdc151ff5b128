"""Before anything starts: can this machine run the recipe (doctor), does it run at all (dry run), and what will it
take (plan)?"""
