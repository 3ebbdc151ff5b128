"""DVC: its pipeline, written from the stages (``pipeline``), what is up to date and recording what was made
(``versions``), a dvc.lock that a kill cut (``dvc_lock``), and workspaces of their own (``workspace``)."""
