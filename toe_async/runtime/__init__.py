"""From an API server to reconcile calls: stores, informers, work queue, leader election, Events, start and stop."""
