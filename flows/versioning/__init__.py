"""DVC.

``versions``   what is up to date; records what was made   ``dvc_lock``  mends a dvc.lock that a kill cut
``workspace``  a folder of its own for other settings      ``pipeline``  dvc.yaml, written from the stages
"""
