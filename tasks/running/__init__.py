"""How a stage runs, whichever it is: inputs checked, units kept, outputs put in place whole.

``stage``     what a stage is                     ``runner``    runs one
``layout``    where every artefact lives          ``manifests`` digests, checked before every use
``journal``   finished units of a stage           ``runtime``   engine, policy and verifier, warm between stages
``lock``      one run a workspace                 ``storage``   full disks and read-only folders
``datasets``  an experiment keeps its problems  ``rejected``  rows of a policy that gives NaN
``plan``      the one loop over all stages: what is done, made, recorded
``imports``   large imports, without collecting garbage
"""
