"""What may leave a site, and the durable record of it: policy, ledger, budget, outbox.

Start at ``client.guard.guard``: ``open_guard`` returns the ``Guard`` that everything goes through.
"""
