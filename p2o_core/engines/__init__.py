"""Rollout engines: they sample completions from the policy.

``base``        the protocol of every engine           ``embedded``  transformers in this process: the default
``vllm``        vLLM in this process                   ``server``    one or many vLLM servers
``connection``  one such server                        ``serving``   how to start one
``prefill``     what prompts leave in the cache        ``swap``      full weights into a running server
``attention``   where query heads share keys
``language_models``  who reflects: the policy, or a teacher behind an endpoint

This file imports nothing: code that needs only the protocol does not pay seconds for torch.
"""
