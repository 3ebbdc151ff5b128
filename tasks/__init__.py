"""The stages: one file each, a pure function from inputs on disk to outputs on disk.

prepare → init → [rollout → verify → mine → evolve → distill → evaluate] × iterations → report

``registry``   all stages by name               ``runner``    runs one: checks, atomic outputs, manifest, tracking
``experiment`` params.yaml as one typed object  ``layout``    where every artefact lives
``manifests``  digests                          ``runtime``   the warm policy and the verifier pool
``tracking``   MLflow
"""
