"""What may leave a site, and the durable record of it: policy, ledger, budget, outbox."""
