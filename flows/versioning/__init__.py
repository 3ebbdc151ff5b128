"""DVC.

``pipeline``   dvc.yaml, written from the stages         ``versions``  what is up to date; records what was made
``dvc_lock``   writes and mends dvc.lock                 ``workspace`` a folder of its own for other settings
"""
