"""Rollout engines: they sample completions from the policy.

``base``        the protocol of every engine           ``embedded``  transformers in this process: the default
``vllm``        vLLM in this process                   ``server``    one or many vLLM servers
``fleet``       a call's requests over all of them     ``connection``  one of them
``serving``     how to start one                       ``swap``      full weights into a running one
``prefill``     what prompts leave in the cache        ``attention`` where query heads share keys
``language_models``  who reflects: the policy, or a teacher behind an endpoint

This file imports nothing: code that needs only the protocol does not pay seconds for torch.
"""
